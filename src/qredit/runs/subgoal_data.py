"""Questions as subgoals, from options to rows: for `qredit subgoal-data`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from qredit.rewards.judge.steps import split_text
from qredit.runs.load import get_task, load_data, load_data_of_task
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example, Split, check_examples
from qredit.tasks.subgoals import (
    RECORD,
    ask_subquestions,
    check_all_cut,
    get_decompose,
    keep_records,
    show_beginnings,
)
from qredit.tasks.table import drop_field, read_text_column

_WRITTEN = ("id", "prompt", "answer", "aliases")


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

    The columns of a user's row go along, but for those that prompt and rationale were read from by name, and those that
    JSON cannot hold. A column that is called as one of the row's own fields gives way to it.

    Args:
        options: those of data count.
        split: whose questions are cut.
        column: of the rationales; None takes the task's own.
        by: what ends a step, a name in `STEPS`.
        lead: text between the prompt and the first step.

    Raises:
        QreditError: as `load_data`, `read_text_column` and `check_examples`; questions without a rationale, with their
            number and the first; a prompt of messages without one of the user.
    """
    found = load_data(options, split, _count(options, split))
    if column is None:
        texts = [one.rationale or "" for one in found.examples]
    else:
        texts = read_text_column(column, found.examples, str(options.data), "rationale column")
    steps = [split_text(text, by) for text in texts]
    check_all_cut([one.id for one in found.examples], [bool(one) for one in steps], "rationale")
    carried, lost = _carry_columns(found.examples, [*_WRITTEN, *filter(None, (column, options.prompt_column))])
    cut = [one for whole, own in zip(carried, steps, strict=True) for one in show_beginnings(whole, own, lead)]
    return _make_subgoals(options, cut, len(steps), (*found.notes, *lost, *_note_whole_rationales(steps, by)))


def cut_decompositions(options: TrainOptions, split: Split) -> Subgoals:
    """The sub-questions that the data tells of each question, and the question itself.

    Args:
        options: those of data count.
        split: whose questions are cut.

    Raises:
        QreditError: as `load_data`, `get_decompose` and `check_examples`; questions without sub-questions, with their
            number and the first; with passages=supporting, a sub-question without a passage.
    """
    task = get_task(options)
    decompose = get_decompose(task)
    found = load_data_of_task(keep_records(task), options, split, _count(options, split))
    hops = [decompose(one.columns[RECORD]) for one in found.examples]
    check_all_cut([one.id for one in found.examples], [bool(own) for own in hops], "sub-questions with an answer each")
    cut = [
        one
        for whole, own in zip(found.examples, hops, strict=True)
        for one in ask_subquestions(whole, [task.render(hop, options.style) for hop in own])
    ]
    return _make_subgoals(options, cut, len(hops), found.notes)


def _count(options: TrainOptions, split: Split) -> int | None:
    return options.get_subset_size() if split == "train" else None


def _carry_columns(examples: Sequence[Example], dropped: Sequence[str]) -> tuple[list[Example], list[str]]:
    """The examples with the columns that go along, and a note of those that cannot."""
    own = [reduce(drop_field, dropped, one.columns) for one in examples]
    lost = {name for columns in own for name, value in columns.items() if not _is_json(value)}
    kept = [{name: value for name, value in columns.items() if name not in lost} for columns in own]
    notes = [f"columns that JSON cannot hold are left out: {', '.join(sorted(lost))}"] if lost else []
    return [replace(one, columns=columns) for one, columns in zip(examples, kept, strict=True)], notes


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):  # a date, bytes, a number of decimals
        return False
    return True


def _note_whole_rationales(steps: Sequence[Sequence[str]], by: str) -> list[str]:
    """A note where nothing was cut."""
    if any(len(own) > 1 for own in steps):
        return []
    hint = "" if by == "sentences" else "; --steps sentences ends a step with each sentence"
    return [f"no rationale has two steps by {by}, so each question is one row, as hard as it was{hint}"]


def _make_subgoals(options: TrainOptions, cut: Sequence[Example], questions: int, notes: Sequence[str]) -> Subgoals:
    # What is written is read again: a question may have the id that a part of another one gets.
    checked = check_examples(options.task, cut)
    return Subgoals(list(_list_rows(checked.examples)), questions, (*notes, *checked.notes))


def _list_rows(examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """As task jsonl reads them."""
    aliases = any(one.aliases for one in examples)
    for one in examples:
        row = {"id": one.id, "prompt": one.prompt, "answer": one.gold}
        yield row | ({"aliases": list(one.aliases)} if aliases else {}) | dict(one.columns)
