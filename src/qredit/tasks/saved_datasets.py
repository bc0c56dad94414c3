"""Folders that `datasets` saved to disk (save_to_disk): one table, or one for each split."""

from pathlib import Path

from qredit.tasks.readers import shorten_floats
from qredit.tasks.table import Table
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.extras import require_extras
from qredit.utils.sanitize import summarize_error

_SINGLE, _SPLITS = "state.json", "dataset_dict.json"


def is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` made a folder."""
    return is_single_table(folder) or (folder / _SPLITS).is_file()


def is_single_table(folder: Path) -> bool:
    """Whether it is one table, which has no splits."""
    return (folder / _SINGLE).is_file() and (folder / "dataset_info.json").is_file()


def read_saved_dataset(folder: Path, split: str) -> Table:
    """The records of such a folder; one table is taken to be that split.

    Raises:
        QreditError: there is no such split, or the files cannot be read.
    """
    require_extras(f"reading {folder}", "trl")
    from datasets import Dataset, load_from_disk

    try:
        found = load_from_disk(str(folder))
        if not isinstance(found, Dataset):
            if split not in found:
                raise unknown_name_error(f"split of {folder}", split, found)
            found = found[split]
        records = shorten_floats(found.with_format(None).to_list(), found.features.arrow_schema)
    except QreditError:
        raise
    except Exception as error:  # whatever datasets and Arrow raise on damaged files
        raise QreditError(f"{folder}: saved by datasets, but cannot be read ({summarize_error(error)})") from None
    if not records:
        raise QreditError(f"{folder}: empty, there are no records in it")
    return Table(str(folder), records)
