"""Tell the value of training examples by forward passes alone: does learning an answer help held-out ones?

For-Value (arXiv 2508.10180): the value of an example is the inner product of its answer's gradient in the output head
with the mean gradient of held-out answers. Examples of low value are where wrong answers are to be looked for. With
--right-column, where it is known which answers are wrong, the area under the curve says how well values find them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from qredit.cli.parser import Parser, add_options, build_options, select_fields
from qredit.cli.shared_options import FOUR_BIT_OPTIONS, TEMPLATE_OPTIONS, split_sources
from qredit.runs.options import TrainOptions, check_minimums, option
from qredit.utils.atomic_files import check_new_file, write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars, to_json_line

SHARED = (
    "model", "task", "data", "style", "passages", "prompt_column", "answer_column", "system_prompt", "instruction",
    "few_shot", "hold_out", "coldness", "chat", "thinking_opening", "thinking_closing", "answer_seam", "answer_end",
    "skip_long", "cpu", *FOUR_BIT_OPTIONS,
)  # fmt: skip
SHOWN = 3


@dataclass(frozen=True)
class ValueOptions:
    """What is valued, and against what."""

    output: str = option("values.jsonl", "file of the values, a line for each example, the least first")
    examples: int | None = option(None, "training examples, in hash order; default: all")
    held: int = option(64, "held-out examples that values are measured against, at most")
    split: str = option("validation", "which they are of", "validation", "test")
    right_column: str | None = option(
        None, "column of the right answer (task jsonl), where some gold answers are known to be wrong"
    )
    rows_per_batch: int = option(32, "examples of a forward pass")

    def __post_init__(self) -> None:
        check_minimums(self, {"examples": 1, "held": 1, "rows_per_batch": 1})


def add_arguments(parser: Parser) -> None:
    """The options of the command, then those it shares with training."""
    add_options(parser, ValueOptions, "value")
    add_options(parser, select_fields(TrainOptions, SHARED), "model, data and format, as in `qredit train`")
    parser.extra_types = lambda: TEMPLATE_OPTIONS


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Value the examples, write the values, show the ends.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    own, shared = split_sources([("the command line", given)], ValueOptions, SHARED)
    asked = build_options(ValueOptions, own)
    options = build_options(TrainOptions, shared, lambda: TEMPLATE_OPTIONS)
    file = Path(asked.output).expanduser()
    check_new_file(file, "the values")
    from qredit.probe.value import load_examples_to_value, value_examples
    from qredit.runs.progress_bars import make_progress_bars
    from qredit.stats.ranking import area_under_curve
    from qredit.tasks.table import read_text_column

    setup = load_examples_to_value(options, asked.examples, asked.held, asked.split)  # type: ignore[arg-type]
    right = None
    if asked.right_column is not None:
        named = read_text_column(asked.right_column, setup.examples, str(options.data), "right column")
        silent = [one.place for text, one in zip(named, setup.examples, strict=True) if not text]
        if silent:
            raise QreditError(f"{silent[0]}: right column '{asked.right_column}' is empty")
        right = [text.strip() == one.gold.strip() for text, one in zip(named, setup.examples, strict=True)]
    with make_progress_bars(progress) as bars:
        bar = bars.add_task("value", total=len(setup.rows) + len(setup.held), note="")
        values = value_examples(setup, asked.rows_per_batch, lambda count: bars.update(bar, advance=count))
    rows: list[dict[str, Any]] = [
        {"id": one.id, "value": value, "answer": one.gold} | ({} if right is None else {"right": right[number]})
        for number, (one, value) in enumerate(zip(setup.examples, values, strict=True))
    ]
    rows.sort(key=lambda row: row["value"])
    write_text_atomic(file, "".join(map(to_json_line, rows)))
    area = math.nan if right is None else area_under_curve(values, right)
    for row in rows[:SHOWN]:
        out.print(f"{row['value']:12.4g}  {escape(escape_control_chars(str(row['answer']), keep=''))}", soft_wrap=True)
    for note in setup.notes:
        out.print(escape(escape_control_chars(note)), soft_wrap=True)
    if right is not None:
        told = "undefined, for one kind is missing" if math.isnan(area) else f"{area:.3f}"
        out.print(f"area under the curve: {told} ({right.count(False)} of {len(right)} answers are wrong)")
    out.print(f"values: {escape(escape_control_chars(str(file)))}", soft_wrap=True)
    return {
        "values": str(file),
        "examples": len(rows),
        "held": len(setup.held),
        "left_out": setup.left_out,
        "notes": list(setup.notes),
        "wrong": None if right is None else right.count(False),
        "auc": None if math.isnan(area) else area,
    }
