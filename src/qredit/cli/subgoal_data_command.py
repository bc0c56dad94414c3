"""Write questions as subgoals, for `qredit train --task jsonl`: a question of each step on the way to an answer.

From rationales, each question is asked again behind the first steps of its own, so that one, two, … steps are left.
From MuSiQue's decompositions, each sub-question is asked with the earlier answers filled in, then the question itself.
Each row has the steps that are left as `difficulty`, which a curriculum reads: `--curriculum "phases('difficulty', …)"`
begins near the end and slides back (docs/data.md).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from qredit.cli.parser import Parser, add_options, build_options, select_fields
from qredit.cli.shared_options import split_sources
from qredit.runs.options import TrainOptions, option
from qredit.tasks.normal_forms import find_unreadable
from qredit.utils.atomic_files import check_new_file, write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars, to_json_line

SHARED = (
    "task", "data", "style", "passages", "prompt_column", "answer_column", "aliases_column", "subset", "hold_out",
)  # fmt: skip


@dataclass(frozen=True)
class SubgoalOptions:
    """What the questions are cut by."""

    output: str = option("subgoals.jsonl", "file of the rows, a line for each")
    source: Literal["rationale", "decomposition"] = option(
        "rationale",
        "where subgoals come from: steps of rationales, or the sub-questions that the data tells (musique)",
        *("rationale", "decomposition"),
    )
    rationale_column: str | None = option(
        None, "column that holds the rationale (task jsonl), a.b for b inside a; default: the task's own rationales"
    )
    steps: Literal["blank_lines", "sentences"] | None = option(
        None, "what ends a step of a rationale; default: blank_lines", "blank_lines", "sentences"
    )
    lead: str | None = option(None, "text between a prompt and the steps behind it; default: a blank line")
    split: Literal["train", "validation", "test"] = option(
        "train", "whose questions are cut", *("train", "validation", "test")
    )

    def __post_init__(self) -> None:
        given = [name for name in ("rationale_column", "steps", "lead") if getattr(self, name) is not None]
        if self.source == "decomposition" and given:
            raise QreditError(f"{given[0]} says how a rationale is cut; with source=decomposition leave it out")
        if bad := find_unreadable(self.lead):
            raise QreditError(f"lead holds {bad}")


def add_arguments(parser: Parser) -> None:
    """The options of the command, then those it shares with training."""
    add_options(parser, SubgoalOptions, "subgoals")
    add_options(parser, select_fields(TrainOptions, SHARED), "data, as in `qredit train`")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Write the rows, and say how many have how many steps left.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    own, shared = split_sources([("the command line", given)], SubgoalOptions, SHARED)
    asked, options = build_options(SubgoalOptions, own), build_options(TrainOptions, shared)
    _check_column(asked, options.task)
    file = Path(asked.output).expanduser()
    check_new_file(file, "the rows")
    from qredit.runs.subgoal_data import cut_decompositions, cut_rationales
    from qredit.tasks.subgoals import DIFFICULTY

    if asked.source == "decomposition":
        cut = cut_decompositions(options, asked.split)
    else:
        lead = "\n\n" if asked.lead is None else asked.lead
        cut = cut_rationales(options, asked.split, asked.rationale_column, asked.steps or "blank_lines", lead)
    write_text_atomic(file, "".join(map(to_json_line, cut.rows)))
    left = Counter(row[DIFFICULTY] for row in cut.rows)
    for note in cut.notes:
        out.print(escape(escape_control_chars(note)), soft_wrap=True)
    counts = ", ".join(f"{left[number]} with {number}" for number in sorted(left))
    out.print(f"{len(cut.rows)} rows of {cut.questions} questions, by steps left: {counts}", soft_wrap=True)
    out.print(f"rows: {escape(escape_control_chars(str(file)))}", soft_wrap=True)
    return {
        "rows": str(file),
        "count": len(cut.rows),
        "questions": cut.questions,
        "difficulty": {str(number): left[number] for number in sorted(left)},
        "notes": list(cut.notes),
    }


def _check_column(asked: SubgoalOptions, task: str) -> None:
    """Refuse a column of a task that has none, and rows of one's own without it."""
    if asked.rationale_column is not None and task != "jsonl":
        raise QreditError(f"rationale_column names a column of task jsonl, not of {task}; leave it out")
    if asked.source == "rationale" and asked.rationale_column is None and task == "jsonl":
        raise QreditError("task jsonl has no rationales of its own; name a column: rationale_column")
