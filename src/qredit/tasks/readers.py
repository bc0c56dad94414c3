"""Files of records: JSON, JSON lines, CSV, Parquet, gzipped or not, read or refused with the line and what helps."""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qredit.tasks.number_text import VerbatimFloat
from qredit.tasks.table import Table
from qredit.utils.errors import QreditError
from qredit.utils.extras import require_extras
from qredit.utils.sanitize import summarize_error

_MARKS = {  # the longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DIGITS = 4300  # Python's limit for reading an integer, which keeps the time it takes in bounds
_PACKED = (".zip", ".zst", ".bz2", ".xz", ".tar", ".7z", ".lz4")


def get_file_kind(path: Path) -> str | None:
    """The reader that a file's name calls for, such as ".jsonl"; None where there is none."""
    name = path.name.lower().removesuffix(".gz")
    return next((kind for kind in READERS if name.endswith(kind)), None)


def read_file(path: Path) -> Table:
    """The records of a .jsonl, .json, .csv or .parquet file, or of one packed by gzip (.jsonl.gz).

    Text is UTF-8, or UTF-16 or UTF-32 that begins with a byte order mark. A .json or .jsonl file holds a list of
    records, or one record per line.

    Raises:
        QreditError: another kind of file, one that cannot be opened, unpacked or parsed (with the line), one without
            records.
    """
    kind = get_file_kind(path)
    if kind is None:
        choices = f"choices: {', '.join(READERS)}, each also with .gz"
        hint = "unpack it first; " if path.suffix.lower() in _PACKED else ""
        raise QreditError(f"{path}: cannot read '{path.suffix}' files; {hint}{choices}")
    table = READERS[kind](path, _bytes(path))
    if not table.records:
        raise QreditError(f"{path}: empty, there are no records in it")
    return table


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise QreditError(f"cannot read {path}: {error.strerror}") from None
    if path.suffix.lower() != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise QreditError(f"{path}: not a whole gzip file ({summarize_error(error)})") from None


def _text(path: Path, data: bytes) -> str:
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        named = encoding.removesuffix("-sig").upper()
        raise QreditError(f"{path}, line {line}: not {named} text ({error.reason}); save it as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise QreditError(f"{path}, line {line}: a NUL byte; the file is damaged, or not UTF-8: save it as UTF-8")
    return text


def _json(path: Path, data: bytes) -> Table:
    text = _text(path, data)
    if text.lstrip().startswith("[") or (get_file_kind(path) == ".json" and text.strip()):
        try:
            found = _parsed(text)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":  # else it is one value per line
                raise QreditError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
        except ValueError as error:
            raise QreditError(f"{path}: {error}") from None
        else:
            if isinstance(found, list):
                return Table(str(path), found)
            raise QreditError(f"{path}: a list of records was expected, not {type(found).__name__}{_inside(found)}")
    return _json_lines(path, text)


def _inside(found: Any) -> str:
    lists = [name for name, value in found.items() if isinstance(value, list)] if isinstance(found, dict) else []
    return f"; put the list inside '{lists[0]}' into a file of its own" if lists else ""


def _json_lines(path: Path, text: str) -> Table:
    records, lines = [], []
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            try:
                records.append(_parsed(line))
            except json.JSONDecodeError as error:
                hint = "; a record stands on one line" if line.strip() == "{" else ""
                raise QreditError(f"{path}, line {number}: not JSON ({error.msg}){hint}") from None
            except ValueError as error:
                raise QreditError(f"{path}, line {number}: {error}") from None
            lines.append(number)
    return Table(str(path), records, lines)


def _parsed(text: str) -> Any:
    """The value that a JSON text holds, its numbers with the digits they are written with.

    Raises:
        JSONDecodeError: not JSON.
        ValueError: JSON that would be read wrongly: a key twice in an object, an integer too long, too deep a nesting.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_float=VerbatimFloat, parse_int=_integer)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply to be read") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' occurs twice in one object; which of the two is meant?")
    return made


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"an integer of {len(text)} digits; write it as text, in quotes")
    return int(text)


def _csv(path: Path, data: bytes) -> Table:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # Python's own limit is 128 KiB a cell, less than some prompts
    rows = csv.DictReader(io.StringIO(_text(path, data), newline=""), strict=True)
    try:
        header = list(rows.fieldnames or ())
        records: list[Any] = list(rows)
    except csv.Error as error:
        raise QreditError(f"{path}, after line {rows.line_num}: not CSV ({error})") from None
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise QreditError(f"{path}: the header names column '{twice[0]}' twice")
    if len(header) == 1 and (mark := next((mark for mark in ";\t" if mark in header[0]), None)):
        raise QreditError(f"{path}: cells are separated by {mark!r}; commas are expected")
    for number, record in enumerate(records, 1):
        if None in record:
            raise QreditError(f"{path}, record {number}: more cells than the header names; are commas quoted?")
        cells = [value for value in record.values() if value is not None]
        if len(cells) < len(header):
            raise QreditError(f"{path}, record {number}: {len(cells)} cells, but the header names {len(header)}")
    return Table(str(path), records)


def _parquet(path: Path, data: bytes) -> Table:
    require_extras(f"reading {path}", "trl")
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        found = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        records = found.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise QreditError(f"{path}: not Parquet that can be read ({summarize_error(error)})") from None
    twice = [name for name in found.column_names if found.column_names.count(name) > 1]
    if twice:
        raise QreditError(f"{path}: there are two columns '{twice[0]}'")
    return Table(str(path), shorten_floats(records, found.schema))


def shorten_floats(records: list[Any], schema: Any) -> list[Any]:
    """The records with the columns of short floats as they print: a float32's 0.1, not 0.10000000149011612."""
    import numpy
    import pyarrow

    kinds = {pyarrow.float16(): numpy.float16, pyarrow.float32(): numpy.float32}
    short = {field.name: kinds[field.type] for field in schema if field.type in kinds}
    if not short:
        return records
    return [
        {
            name: VerbatimFloat(str(short[name](cell))) if name in short and cell is not None else cell
            for name, cell in row
        }
        for row in (record.items() for record in records)
    ]


Reader = Callable[[Path, bytes], Table]
READERS: Mapping[str, Reader] = {".jsonl": _json, ".json": _json, ".csv": _csv, ".parquet": _parquet}
