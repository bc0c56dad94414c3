"""Questions as subgoals, from options to rows: for `qredit subgoal-data`."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.rewards.judge.steps import split_text
from qredit.runs.load import get_task, load_data
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example, Split
from qredit.tasks.subgoals import QUESTION_ID, ask_subquestions, check_all_cut, show_beginnings
from qredit.tasks.table import read_text_column


@dataclass(frozen=True)
class Subgoals:
    """What questions were cut into.

    Attributes:
        rows: to be written, those of a question behind each other.
        questions: how many were cut.
        notes: what has to be said about how they were read.
    """

    rows: Sequence[dict[str, Any]]
    questions: int
    notes: tuple[str, ...]


def cut_rationales(options: TrainOptions, split: Split, column: str | None, by: str, lead: str) -> Subgoals:
    """What is left of each question behind the first steps of its rationale.

    Args:
        options: those of data count.
        split: whose questions are cut.
        column: of the rationales; None takes the task's own.
        by: what ends a step, a name in `STEPS`.
        lead: text between the prompt and the first step.

    Raises:
        QreditError: as `load_data`; questions without a rationale, with their number and the first; a prompt of
            messages without one of the user.
    """
    found = load_data(options, split, _count(options, split))
    if column is None:
        texts = [one.rationale or "" for one in found.examples]
    else:
        texts = read_text_column(column, found.examples, str(options.data), "rationale column")
    steps = [split_text(text, by) for text in texts]
    check_all_cut([one.id for one in found.examples], [bool(one) for one in steps], "rationale")
    cut = [one for whole, own in zip(found.examples, steps, strict=True) for one in show_beginnings(whole, own, lead)]
    return Subgoals(list(_list_rows(cut)), len(steps), found.notes)


def cut_decompositions(options: TrainOptions, split: Split) -> Subgoals:
    """The sub-questions that the data tells of each question, and the question itself.

    Args:
        options: those of data count.
        split: whose questions are cut.

    Raises:
        QreditError: as `load_data` and `ask_subquestions`.
    """
    asked = ask_subquestions(get_task(options)).loaded(options.data, split, options.style)
    of: dict[str, list[Example]] = defaultdict(list)
    for one in asked.examples:
        of[one.columns[QUESTION_ID]].append(one)
    # Which questions count, of a single file of which some are held out or of a subset, is a matter of whole ones.
    found = load_data(options, split, _count(options, split))
    cut = [one for whole in found.examples for one in sorted(of[whole.id], key=_find_place)]
    return Subgoals(list(_list_rows(cut)), len(found.examples), found.notes)


def _find_place(one: Example) -> tuple[bool, int, str]:
    """That among the rows of its question: `id:2` before `id:10`, the whole question last."""
    return one.id == one.columns[QUESTION_ID], len(one.id), one.id


def _count(options: TrainOptions, split: Split) -> int | None:
    return options.get_subset_size() if split == "train" else None


def _list_rows(examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """As task jsonl reads them."""
    aliases = any(one.aliases for one in examples)
    for one in examples:
        row = {"id": one.id, "prompt": one.prompt, "answer": one.gold}
        yield row | ({"aliases": list(one.aliases)} if aliases else {}) | dict(one.columns)
