"""SQL over the table of a row: in memory, read alone, with a time limit."""

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

COLUMN = "table"
SECONDS = 1.0
MOST_ROWS = 20
_LONGEST_VALUE, _LONGEST_QUERY = 100_000, 2_000
_READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_INSTRUCTIONS_PER_CHECK = 1000


def sql(query: str, *, example: dict[str, Any]) -> str:
    """Ask the table with SQL. It is called data. Its columns are named as in its first line, such as "2007".

    Args:
        query: one SELECT, such as SELECT "2007" FROM data WHERE item = 'rent'.
        example: the row of data that the table stands in.
    """
    table = example.get(COLUMN)
    if not table:
        raise ValueError(f"the row has no column {COLUMN}")
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        _fill(connection, table)
        _close_for_writing(connection)
        rows = connection.execute(query).fetchmany(MOST_ROWS + 1)
    lines = [" | ".join("NULL" if value is None else str(value) for value in row) for row in rows[:MOST_ROWS]]
    return "\n".join([*lines, *(["…"] if len(rows) > MOST_ROWS else [])]) or "no rows"


def _fill(connection: sqlite3.Connection, table: Sequence[Sequence[str]]) -> None:
    """Put the rows behind the header; a header without a name is item, as in the prompt."""
    header, *rows = table
    names = ", ".join('"' + (name or "item").replace('"', '""') + '"' for name in header)
    connection.execute(f"CREATE TABLE data ({names})")
    places = ", ".join("?" * len(header))
    connection.executemany(f"INSERT INTO data VALUES ({places})", [[_read_cell(cell) for cell in row] for row in rows])


def _close_for_writing(connection: sqlite3.Connection) -> None:
    """From here on nothing is written or attached, no file is opened, and time and sizes are limited."""
    connection.set_authorizer(
        lambda action, first, second, *_: (
            sqlite3.SQLITE_OK if action in _READING and second != "load_extension" else sqlite3.SQLITE_DENY
        )
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST_QUERY)
    end = time.monotonic() + SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > end, _INSTRUCTIONS_PER_CHECK)


def _read_cell(cell: str) -> str | int | float:
    """The number that a cell is, or its text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(cell)
    return cell
