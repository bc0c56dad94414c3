"""The records of a split, from a file or folder on disk or from the Hugging Face Hub."""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from qredit.tasks.base import Record, Split, hash_id
from qredit.tasks.readers import READERS, get_file_kind, read_file
from qredit.tasks.saved_datasets import is_saved_dataset, is_single_table, read_saved_dataset
from qredit.tasks.table import Table
from qredit.utils.errors import QreditError
from qredit.utils.extras import require_extras
from qredit.utils.sanitize import summarize_error

R = TypeVar("R", bound=Record)
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class SplitLayout:
    """Where each split lies: the names its file may have in a folder, and its name on the Hub.

    Attributes:
        any_name: a folder with one file of another name is that file.
    """

    files: Mapping[Split, tuple[str, ...]]
    hub: Mapping[Split, str]
    any_name: bool = False

    @property
    def names(self) -> set[str]:
        """The names of all files."""
        return {name for names in self.files.values() for name in names}


def read_table(source: str | None, split: Split, layout: SplitLayout) -> Table:
    """The records of a split.

    Args:
        source: a folder with the official files, with the Parquet files of a copy from the Hub, or, where the layout
            allows `any_name`, with one file; a single file, taken to be the file of that split; what `datasets` saved
            to disk; or the id of a Hugging Face data set, owner/name or owner/name:configuration.
        split: train, validation or test.
        layout: where a split's records are.

    Raises:
        QreditError: no source, nothing there, the file of another split, or a file that cannot be read.
    """
    if not source:
        raise QreditError(f"no data given: name a folder with {_names(layout)}, one such file, or an owner/name")
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            if is_saved_dataset(path):
                return read_saved_dataset(path, layout.hub[split])
            shards = _shards(path, layout.hub[split])
            if shards:
                return _read_shards(shards)
            path = _find_in_folder(path, split, layout)
        elif not path.exists():
            return _load_from_hub(source, layout.hub[split], layout)
    except OSError as error:  # a folder that may not be entered, a name longer than the system allows
        raise QreditError(f"cannot read {source}: {error.strerror}") from None
    _refuse_other_split(path, split, layout)
    table = read_file(path)
    said = None if path == Path(source).expanduser() or path.name in layout.names else f"read from {path}"
    return replace(table, note=said)


def find_single_file(source: str, any_name: bool) -> Path | None:
    """The one file or saved table that the data is, which has no splits; None where it is anything else.

    Args:
        any_name: a folder with a single file that is named as none of the splits counts as that file.
    """
    path = Path(source).expanduser()
    with contextlib.suppress(OSError):
        if path.is_file() or (path.is_dir() and is_single_table(path)):
            return path
        if any_name and path.is_dir() and not is_saved_dataset(path):
            return _only_file(path)
    return None


def take_half(records: Sequence[Record], split: Split, id_field: str) -> list[Record]:
    """Validation or test out of one labelled set: its first or second half in hash order. Our rule.

    For data sets whose official test labels are hidden.

    Args:
        records: all of them.
        split: train, validation or test.
        id_field: key of a record's id.
    """
    head, tail = split_by_hash(records, id_field, lambda count: (count + 1) // 2)
    return head if split == "validation" else tail


def split_by_hash(records: Sequence[R], id_field: str, cut: Callable[[int], int]) -> tuple[list[R], list[R]]:
    """The records of the first `cut(number of ids)` ids in hash order (see `qredit.tasks.base.hash_id`), and the rest.

    It is ids that are counted: a record that occurs twice is on one side only.

    Args:
        records: all of them.
        id_field: key of a record's id.
        cut: how many of so many ids come first.
    """
    ids = sorted({str(record[id_field]) for record in records}, key=hash_id)
    first = set(ids[: cut(len(ids))])
    ordered = sorted(records, key=lambda record: hash_id(str(record[id_field])))
    return (
        [record for record in ordered if str(record[id_field]) in first],
        [record for record in ordered if str(record[id_field]) not in first],
    )


def _find_in_folder(folder: Path, split: Split, layout: SplitLayout) -> Path:
    names = layout.files[split]
    for name in names:
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return file
    only = _only_file(folder) if layout.any_name else None
    if only is not None:
        return only
    there = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(there[:8]) + (", …" if len(there) > 8 else "")
    alone = _only_file(folder)
    given = alone is not None and alone.name not in layout.names
    hint = f"; if the records are in that file, give --data {alone}" if given else ""
    raise QreditError(f"no {' or '.join(names)} in {folder}; it holds: {listed or 'nothing'}{hint}")


def _shards(folder: Path, split: str) -> list[Path]:
    """The Parquet files of a split in a copy from the Hub: data/train-00000-of-00002.parquet and so on."""
    names = f"{split}-*-of-*.parquet"
    return sorted(folder.glob(names)) or sorted((folder / "data").glob(names))


def _read_shards(shards: Sequence[Path]) -> Table:
    tables = [read_file(path) for path in shards]
    if len(tables) == 1:
        return tables[0]
    records = [record for table in tables for record in table.records]
    return Table(f"{shards[0]} and {len(shards) - 1} more", records)


def _only_file(folder: Path) -> Path | None:
    """The only file of a folder that could hold records, unless it is named as one of the splits."""
    files = [path for path in folder.iterdir() if path.is_file() and get_file_kind(path) is not None]
    return files[0] if len(files) == 1 and files[0].name.partition(".")[0] not in SPLITS else None


def _refuse_other_split(path: Path, split: Split, layout: SplitLayout) -> None:
    """An official file of another split would put the same records into training and evaluation."""
    owners = [owner for owner, names in layout.files.items() if path.name in names]
    if owners and split not in owners:
        wanted = " or ".join(layout.files[split])
        raise QreditError(f"{path} is the {' and '.join(owners)} split; for {split}, give {wanted} or the folder")


def _load_from_hub(source: str, split: str, layout: SplitLayout) -> Table:
    if not _HUB_ID.fullmatch(source) or Path(source).suffix in READERS:
        raise QreditError(
            f"no file or folder '{source}'; looked for a folder with {_names(layout)}, or one such file "
            "(a data set on the Hub is written owner/name or owner/name:configuration)"
        )
    require_extras(f"reading '{source}' from the Hub", "trl")
    from datasets import load_dataset

    name, _, configuration = source.partition(":")
    try:
        rows = list(load_dataset(name, configuration or None, split=split))
    except Exception as error:  # whatever the network, the Hub or the data set's own files raise
        reason = f"{type(error).__name__}: {summarize_error(error)}"
        raise QreditError(f"'{source}' is no file or folder, and split {split} cannot be loaded: {reason}") from error
    return Table(source, rows)


def _names(layout: SplitLayout) -> str:
    return ", ".join(dict.fromkeys(names[0] for names in layout.files.values()))
