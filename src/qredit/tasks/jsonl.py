"""Your own questions and answers, from a file with one row each or from a data set on the Hub."""

from collections.abc import Mapping
from typing import Any

from qredit.tasks.base import NEEDED, PLACE_KEY, Example, Record, RecordsWithNotes, Split, Style, Task
from qredit.tasks.cells import Message, parse_answers, parse_chat, split_chat
from qredit.tasks.columns import Columns
from qredit.tasks.files import SPLITS, SplitLayout, read_table
from qredit.tasks.normal_forms import normalize_prompt, normalize_text
from qredit.tasks.table import Table, get_field, has_field
from qredit.utils.errors import unknown_name_error

_KINDS = ("jsonl", "json", "csv", "parquet")
LAYOUT = SplitLayout(
    files={split: tuple(f"{split}.{kind}" for kind in _KINDS) for split in SPLITS},
    hub={split: split for split in SPLITS},
    any_name=True,
)


def make_jsonl_task(
    answer: str | None = None, prompt: str | None = None, aliases: str | None = None, needed: str | None = NEEDED
) -> Task:
    """The task over rows of prompt, answer and, if wanted, aliases and id.

    A prompt, a text or a list of chat messages with role and content, is used as it is, in both styles. An answer is
    text, a number, one assistant message, or a list of texts or numbers: the answer, then aliases. Further aliases are
    a list of strings, or one string. The id is the row's number where there is none; a row that only repeats an
    earlier one has its id, and is dropped. A folder holds train, validation and test, each as .jsonl, .json, .csv or
    .parquet; or one file of any name; or what `datasets` saved to disk.

    Args:
        answer, prompt, aliases: the columns that hold them, perhaps inside others: "reward_model.ground_truth". None
            goes by the usual names; see `Columns.found`.
        needed: why every row must have an answer, for errors. None: rows may all be without; a column that is there is
            read, and checked as ever.
    """

    def read(source: str | None, split: Split) -> RecordsWithNotes:
        table = read_table(source, split, LAYOUT)
        first = next((record for record in table.records if isinstance(record, Mapping)), {})
        columns = Columns(prompt, answer, aliases).found(table.place(1), first, needed)
        if aliases is not None and not any(has_field(one, aliases) for one in table.records if isinstance(one, dict)):
            raise unknown_name_error(f"aliases column of {table.where}", aliases, first)
        fields = tuple(filter(None, (columns.prompt, columns.answer)))
        rows = [_row(table, number, record, columns) for number, record in table.iter_records(lambda record: fields)]
        return RecordsWithNotes(_with_ids(rows), tuple(filter(None, (table.note, columns.told()))))

    return Task(
        name="jsonl",
        summary="your own rows: prompt, answer, and aliases and id if wanted (.jsonl, .json, .csv, .parquet, Hub)",
        read=read,
        render=render,
        metrics=("exact_match", "normalized_exact_match", "f1", "substring"),
    )


def render(record: Record, style: Style) -> Example:
    """The row as it is; the style changes nothing."""
    return Example(record["prompt"], record["answer"], record["id"], record["aliases"], columns=record["columns"])


JSONL = make_jsonl_task()


def _row(table: Table, number: int, record: Record, columns: Columns) -> dict[str, Any]:
    """prompt, answer, id and aliases as the strings of an `Example`, and all columns; the id may be missing."""
    prompt, answers = _question(table, number, record, columns)
    aliases = _aliases(table, number, record, str(columns.aliases)) if columns.answered else ()
    id = record.get("id")
    return {
        "prompt": prompt,
        "answer": next(iter(answers), None),
        "id": None if id in (None, "") else str(id),
        "aliases": tuple(dict.fromkeys((*answers, *aliases)))[1:],
        "number": number,
        "columns": {name: value for name, value in record.items() if name != PLACE_KEY},
        PLACE_KEY: record[PLACE_KEY],
    }


def _question(
    table: Table, number: int, record: Record, columns: Columns
) -> tuple[str | list[Message], tuple[str, ...]]:
    """The prompt, and the answer with the aliases that stand beside it."""
    name = str(columns.prompt)
    given = get_field(record, name)
    prompt = given if isinstance(given, str) and given.strip() else parse_chat(given)
    if prompt is None:
        raise table.error(number, f"field '{name}' must be text or a list of chat messages, not {given!r}")
    if not columns.answered:
        return prompt, ()
    if columns.answer is None:
        parts = split_chat(prompt) if isinstance(prompt, list) else None
        if parts is None or not parts[1].strip():
            raise table.error(
                number, f"the last message of '{name}' must be the assistant's answer, or name one with --answer-column"
            )
        return parts[0], (parts[1],)
    answers = parse_answers(get_field(record, columns.answer))
    if name == "messages" and prompt[-1]["role"] == "assistant":  # type: ignore[index]
        raise table.error(
            number,
            f"'{name}' ends with the assistant's answer, which the model would see; remove it or the column "
            f"'{columns.answer}'",
        )
    if not answers:
        found = get_field(record, columns.answer)
        raise table.error(
            number, f"field '{columns.answer}' must be text, a number or one assistant message, not {found!r}"
        )
    return prompt, answers


def _aliases(table: Table, number: int, record: Record, name: str) -> tuple[str, ...]:
    found = get_field(record, name) if has_field(record, name) else None
    given = [part for part in (found if isinstance(found, list) else [found]) if part not in (None, "")]
    aliases = parse_answers(given)
    if given and not aliases:
        raise table.error(number, f"field '{name}' must be a list of strings, not {found!r}")
    return aliases


def _with_ids(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with an id each: their own, or their number, or that of the row they repeat."""
    seen: dict[tuple[str, ...], str] = {}
    for row in rows:
        if row["id"] is None:
            right = (*filter(None, (row["answer"],)), *row["aliases"])
            said = (normalize_prompt(row["prompt"]), *map(normalize_text, right))
            row["id"] = seen.setdefault(said, str(row["number"]))
    return rows
