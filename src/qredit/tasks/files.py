"""Records from disk or from the Hugging Face Hub, and errors that say where one is broken."""

import csv
import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qredit.errors import QreditError
from qredit.tasks.base import Record, Split, hash_of

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class Layout:
    """Where each split lies: the names its file may have in a folder, and its name on the Hub."""

    files: Mapping[Split, tuple[str, ...]]
    hub: Mapping[Split, str]


@dataclass(frozen=True)
class Table:
    """Records and the name of the file or data set they came from."""

    where: str
    records: Sequence[Any]

    def error(self, number: int, message: str) -> QreditError:
        """The error for record `number`, counted from 1."""
        return QreditError(f"{self.where}, record {number}: {message}")

    def checked(self, fields: Callable[[Record], Sequence[str]]) -> Iterator[tuple[int, Record]]:
        """Number and record, for each; every field that `fields` asks of the record is there and not null.

        A field "qa.question" is the question inside the field qa.

        Raises:
            QreditError: a record that is not an object, or a field that is missing or null.
        """
        for number, record in enumerate(self.records, 1):
            if not isinstance(record, Mapping):
                raise self.error(number, f"an object with named fields was expected, not {type(record).__name__}")
            for field in fields(record):
                problem = _problem(record, field)
                if problem:
                    raise self.error(number, problem)
            yield number, record


def read_table(source: str | None, split: Split, layout: Layout) -> Table:
    """The records of a split.

    Args:
        source: a folder with the official files; a single file, taken to be the file of that split; or the id of a
            Hugging Face data set, owner/name or owner/name:configuration.

    Raises:
        QreditError: no source, nothing there, the file of another split, or a file that cannot be read.
    """
    if not source:
        raise QreditError(f"no data given: name a folder with {_names(layout)}, one such file, or an owner/name")
    path = Path(source).expanduser()
    if path.is_dir():
        path = _in_folder(path, layout.files[split])
    elif not path.exists():
        return _from_hub(source, layout.hub[split], layout)
    _refuse_other_split(path, split, layout)
    return Table(str(path), read_file(path))


def read_file(path: Path) -> list[Any]:
    """The records of a .jsonl, .json, .csv or .parquet file.

    Raises:
        QreditError: another kind of file, one that cannot be parsed (with the line), one without records.
    """
    if path.suffix not in _READERS:
        raise QreditError(f"{path}: cannot read '{path.suffix}' files; choices: {', '.join(_READERS)}")
    try:
        records = _READERS[path.suffix](path)
    except UnicodeDecodeError as error:
        raise QreditError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not records:
        raise QreditError(f"{path}: empty, there are no records in it")
    return records


def half(records: Sequence[Record], split: Split, id_field: str) -> list[Record]:
    """Validation or test out of one labelled set: its first or second half in hash order. Our rule.

    For data sets whose official test labels are hidden.
    """
    ordered = by_hash(records, id_field)
    middle = (len(ordered) + 1) // 2
    return ordered[:middle] if split == "validation" else ordered[middle:]


def by_hash(records: Sequence[Record], id_field: str) -> list[Record]:
    """The records in hash order of their id; see `qredit.tasks.base.hash_of`."""
    return sorted(records, key=lambda record: hash_of(str(record[id_field])))


def _jsonl(path: Path) -> list[Any]:
    records = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    records.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise QreditError(f"{path}, line {number}: not JSON ({error.msg})") from error
    return records


def _json(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        records = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        hint = "; is it one record per line? Then name it .jsonl" if error.msg == "Extra data" else ""
        raise QreditError(f"{path}, line {error.lineno}: not JSON ({error.msg}){hint}") from error
    if not isinstance(records, list):
        raise QreditError(f"{path}: a list of records was expected, not {type(records).__name__}")
    return records


def _csv(path: Path) -> list[Any]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines, strict=True)
        try:
            records: list[Any] = list(rows)
        except csv.Error as error:
            raise QreditError(f"{path}, after line {rows.line_num}: not CSV ({error})") from error
    for number, record in enumerate(records, 1):
        if None in record:
            raise QreditError(f"{path}, record {number}: more cells than the header names; are commas quoted?")
    return records


def _parquet(path: Path) -> list[Any]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        return list(pyarrow.parquet.read_table(path).to_pylist())
    except pyarrow.ArrowException as error:
        raise QreditError(f"{path}: not Parquet ({_first_line(error)})") from error


_READERS: Mapping[str, Callable[[Path], list[Any]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _in_folder(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    there = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(there[:8]) + (", …" if len(there) > 8 else "")
    raise QreditError(f"no {' or '.join(names)} in {folder}; it holds: {listed or 'nothing'}")


def _refuse_other_split(path: Path, split: Split, layout: Layout) -> None:
    """An official file of another split would put the same records into training and evaluation."""
    owners = [owner for owner, names in layout.files.items() if path.name in names]
    if owners and split not in owners:
        wanted = " or ".join(layout.files[split])
        raise QreditError(f"{path} is the {' and '.join(owners)} split; for {split}, give {wanted} or the folder")


def _from_hub(source: str, split: str, layout: Layout) -> Table:
    if not _HUB_ID.fullmatch(source) or Path(source).suffix in _READERS:
        raise QreditError(
            f"no file or folder '{source}'; looked for a folder with {_names(layout)}, or one such file "
            "(a data set on the Hub is written owner/name or owner/name:configuration)"
        )
    from datasets import load_dataset

    name, _, configuration = source.partition(":")
    try:
        rows = load_dataset(name, configuration or None, split=split)
    except Exception as error:  # whatever the network, the Hub or the data set's own files raise
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise QreditError(f"'{source}' is no file or folder, and split {split} cannot be loaded: {reason}") from error
    return Table(source, list(rows))


def _names(layout: Layout) -> str:
    return ", ".join(dict.fromkeys(names[0] for names in layout.files.values()))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]


def _problem(record: Record, field: str) -> str | None:
    """What is wrong with a field, in words; None where nothing is."""
    value: Any = record
    for name in field.split("."):
        if not isinstance(value, Mapping):
            return f"field '{field}' is missing: the part before '{name}' is not an object"
        if name not in value:
            nearest = difflib.get_close_matches(name, value, n=1)
            hint = f"did you mean '{nearest[0]}'? " if nearest else ""
            return f"no field '{field}'; {hint}There are: {', '.join(sorted(value))}"
        value = value[name]
    return f"field '{field}' is null" if value is None else None
