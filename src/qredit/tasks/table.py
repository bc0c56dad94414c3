"""Records of one file, each with its place for messages, and fields found by their dotted names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.tasks.base import PLACE_KEY, Example, Record
from qredit.tasks.normal_forms import find_unreadable
from qredit.utils.errors import QreditError, find_nearest, unknown_name_error


@dataclass(frozen=True)
class Table:
    """Records and the name of the file or data set they came from.

    Attributes:
        lines: the line of each record, for files whose records are lines.
        note: what has to be said about where they were found, a sentence.
    """

    where: str
    records: Sequence[Any]
    lines: Sequence[int] = ()
    note: str | None = None

    def place(self, number: int) -> str:
        """Where record `number` stands, counted from 1: with its line, where blank lines make the two differ."""
        line = self.lines[number - 1] if self.lines else number
        return f"{self.where}, record {number}" + (f" (line {line})" if line != number else "")

    def error(self, number: int, message: str) -> QreditError:
        """The error for record `number`, counted from 1."""
        return QreditError(f"{self.place(number)}: {message}")

    def iter_records(self, fields: Callable[[Record], Sequence[str]]) -> Iterator[tuple[int, Record]]:
        """Number and record, with its place under `PLACE_KEY`; every field that `fields` asks for is there and not
        null.

        A field "qa.question" is the question inside the field qa.

        Raises:
            QreditError: a record that is not an object; a field that is missing, null, or holds text that no
                tokenizer reads.
        """
        for number, record in enumerate(self.records, 1):
            if not isinstance(record, Mapping):
                raise self.error(number, f"an object with named fields was expected, not {type(record).__name__}")
            for field in fields(record):
                problem = _problem(record, field)
                if problem:
                    raise self.error(number, problem)
            yield number, {**record, PLACE_KEY: self.place(number)}


def has_field(record: Record, field: str) -> bool:
    """Whether the field is there, null or not."""
    return _look_up(record, field)[1] is None


def get_field(record: Record, field: str) -> Any:
    """The value of a field that is there: the column of that very name, else the part inside other fields."""
    return _look_up(record, field)[0]


def drop_field(record: Record, field: str) -> dict[str, Any]:
    """The record without a field, of which other parts stay where it is inside others."""
    head, _, rest = field.partition(".")
    inside = record.get(head)
    if field in record or not rest or not isinstance(inside, Mapping):
        return {name: value for name, value in record.items() if name != field}
    return {**record, head: drop_field(inside, rest)}


def _look_up(record: Record, field: str) -> tuple[Any, str | None]:
    """A field's value and None, or None and what is missing, in words."""
    if field in record:  # flattened tables have columns with dots in their names
        return record[field], None
    value: Any = record
    for name in field.split("."):
        if not isinstance(value, Mapping):
            return None, f"field '{field}' is missing: the part before '{name}' is not an object"
        if name not in value:
            nearest = find_nearest(name, value)
            hint = "" if nearest is None else f"did you mean '{nearest}'? "
            return None, f"no field '{field}'; {hint}There are: {', '.join(sorted(map(str, value)))}"
        value = value[name]
    return value, None


def _problem(record: Record, field: str) -> str | None:
    """What is wrong with a field, in words; None where nothing is."""
    value, missing = _look_up(record, field)
    if missing is not None or value is None:
        return missing or f"field '{field}' is null"
    bad = find_unreadable(value)
    return None if bad is None else f"field '{field}' holds {bad}"


def read_text_column(column: str, examples: Sequence[Example], where: str, what: str) -> list[str]:
    """A column of the users' rows as texts; an empty one where a row has none.

    Args:
        column: its name, a.b for b inside a.
        examples: with the rows that they were read from.
        where: the data, for errors.
        what: the column, in words.

    Raises:
        QreditError: no row has it, with the nearest name; a value that is no text, or text that no tokenizer reads,
            with its row.
    """
    if not any(has_field(example.columns, column) for example in examples):
        names = {str(name) for example in examples for name in example.columns}
        raise unknown_name_error(f"{what} of {where}", column, names)
    found = []
    for example in examples:
        value = get_field(example.columns, column) if has_field(example.columns, column) else None
        if value is not None and not isinstance(value, str):
            raise QreditError(f"{example.place}: field '{column}' must be text, not {value!r}")
        if bad := find_unreadable(value):
            raise QreditError(f"{example.place}: field '{column}' holds {bad}")
        found.append(value if value and value.strip() else "")
    return found
