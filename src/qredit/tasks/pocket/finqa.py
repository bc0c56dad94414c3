"""pocket-finqa: a sum or a difference of two numbers of a small table, in the schema of FinQA."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qredit.tasks.base import Example, Record, Split, Style
from qredit.tasks.pocket.language import are_distinct, draw_name
from qredit.tasks.pocket.scene import (
    Scene,
    Statement,
    assign_split,
    build_pocket_prompt,
    make_pocket_task,
    make_record_id,
)

NAME = "pocket-finqa"
INSTRUCTION = "Use the table. Answer with the number alone."
ROWS = 3
NUMBERS = range(10, 100)
YEARS = range(2000, 2024)


@dataclass(frozen=True)
class Row:
    """An item with its numbers in two years, the earlier one first."""

    item: str
    earlier: int
    later: int

    @property
    def cells(self) -> list[str]:
        """The row as it stands in the table."""
        return [self.item, str(self.earlier), str(self.later)]


def draw(rng: random.Random, split: Split) -> Scene:
    """A table, with the change and the total of each row to be asked for."""
    while True:
        rows = _draw_rows(rng, split)
        if _answers_are_elsewhere(rows):
            break
    year = rng.choice(YEARS)
    records = [record for row in rows for record in (_change(rows, row, year), _total(rows, row, year))]
    said = [(row.item, number) for row in rows for number in (row.earlier, row.later)]
    return Scene(tuple(records), tuple(Statement(f"{item}: {number}.", str(number)) for item, number in said))


def render(record: Record, style: Style) -> Example:
    """The text and the table, then the question. The rationale is the explanation: both numbers, operation, result.

    Args:
        record: pre_text, post_text, table, id, and qa with question, answer and explanation, as in the official files.
    """
    rows = [" | ".join(cell or "item" for cell in row) for row in record["table"]]
    return Example(
        prompt=build_pocket_prompt(
            style, INSTRUCTION, (*record["pre_text"], *rows, *record["post_text"]), record["qa"]["question"]
        ),
        answer=record["qa"]["answer"],
        id=record["id"],
        rationale=record["qa"]["explanation"],
        columns={"table": record["table"]},
    )


POCKET_FINQA = make_pocket_task(
    name=NAME,
    summary="generated: the change or the total of an item in a small table (FinQA's schema)",
    draw=draw,
    render=render,
    metrics=("exact_match", "numeric"),
)


def _draw_rows(rng: random.Random, split: Split) -> list[Row]:
    rows: dict[str, Row] = {}
    while len(rows) < ROWS:
        row = Row(draw_name(rng), rng.choice(NUMBERS), rng.choice(NUMBERS))
        if assign_split(row.cells) == split and are_distinct([*rows, row.item]):
            rows[row.item] = row
    return list(rows.values())


def _answers_are_elsewhere(rows: Sequence[Row]) -> bool:
    """No answer stands in the table, whatever is asked, and none of them is 0."""
    shown = {number for row in rows for number in (row.earlier, row.later)}
    asked = {answer for row in rows for answer in (row.later - row.earlier, row.later + row.earlier)}
    return shown.isdisjoint(asked) and 0 not in asked


def _change(rows: Sequence[Row], row: Row, year: int) -> dict[str, Any]:
    words = f"{row.later} - {row.earlier}"
    program = f"subtract({row.later}, {row.earlier})"
    return _record(rows, row, year, f"What is the change of {row.item}?", words, program, row.later - row.earlier)


def _total(rows: Sequence[Row], row: Row, year: int) -> dict[str, Any]:
    words = f"{row.earlier} + {row.later}"
    program = f"add({row.earlier}, {row.later})"
    return _record(rows, row, year, f"What is the total of {row.item}?", words, program, row.earlier + row.later)


def _record(
    rows: Sequence[Row], row: Row, year: int, question: str, words: str, program: str, result: int
) -> dict[str, Any]:
    table = [["", str(year), str(year + 1)], *(row.cells for row in rows)]
    place = rows.index(row) + 1
    return {
        "id": make_record_id(NAME, (*("|".join(cells) for cells in table), question)),
        "filename": f"{NAME}/{year + 1}",
        "pre_text": ["Sales by item."],
        "post_text": [],
        "table": table,
        "table_ori": table,
        "qa": {
            "question": question,
            "answer": str(result),
            "explanation": f"{row.item}: {words} = {result}.",
            "ann_table_rows": [place],
            "ann_text_rows": [],
            "steps": [],
            "program": program,
            "program_re": program,
            "gold_inds": {f"table_{place}": " | ".join(row.cells)},
            "exe_ans": result,
        },
    }
