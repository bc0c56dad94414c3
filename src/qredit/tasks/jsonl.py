"""Your own questions and answers, from a file with one row each or from a data set on the Hub."""

import math
from collections.abc import Iterable
from typing import Any

from qredit.tasks.base import Example, Record, Split, Style, Task, answer_text
from qredit.tasks.files import Layout, Table, read_table

_KINDS = ("jsonl", "json", "csv", "parquet")
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
LAYOUT = Layout(
    files={split: tuple(f"{split}.{kind}" for kind in _KINDS) for split in _SPLITS},
    hub={split: split for split in _SPLITS},
)


def jsonl(answer: str = "answer") -> Task:
    """The task over rows of prompt, answer and, if wanted, aliases and id.

    A prompt, a text or a list of chat messages with role and content, is used as it is, in both styles. An answer is
    text, a number or one assistant message; aliases are a list of strings, or one string; the id is the row's number
    where there is none. A folder holds train, validation and test, each as .jsonl, .json, .csv or .parquet.

    Args:
        answer: the name of the column that holds the answer.
    """

    def read(source: str | None, split: Split) -> Iterable[Record]:
        table = read_table(source, split, LAYOUT)
        for number, record in table.checked(lambda record: ("prompt", answer)):
            yield _row(table, number, record, answer)

    return Task(
        name="jsonl",
        summary="your own rows: prompt, answer, and aliases and id if wanted (.jsonl, .json, .csv, .parquet, Hub)",
        read=read,
        render=render,
        metrics=("exact_match", "normalized_exact_match", "f1", "substring"),
    )


def render(record: Record, style: Style) -> Example:
    """The row as it is; the style changes nothing."""
    return Example(record["prompt"], record["answer"], record["id"], record["aliases"])


JSONL = jsonl()


def _row(table: Table, number: int, record: Record, column: str) -> Record:
    """prompt, answer, id and aliases as the strings of an `Example`."""
    prompt, answer = record["prompt"], answer_text(record[column])
    aliases, id = record.get("aliases") or (), record.get("id")
    if not _is_prompt(prompt):
        raise table.error(number, f"field 'prompt' must be text or a list of chat messages, not {prompt!r}")
    if not _is_answer(answer):
        raise table.error(number, f"field '{column}' must be text, a number or one assistant message, not {answer!r}")
    if not isinstance(aliases, str) and not all(isinstance(alias, str) for alias in aliases):
        raise table.error(number, f"field 'aliases' must be a list of strings, not {aliases!r}")
    return {
        "prompt": prompt,
        "answer": str(answer),
        "id": str(number if id in (None, "") else id),
        "aliases": (aliases,) if isinstance(aliases, str) else tuple(aliases),
    }


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _is_answer(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
