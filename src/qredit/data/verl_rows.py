"""The files that `qredit verl-data` writes, read back."""

from pathlib import Path
from typing import Any

from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error


def read_verl_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file.

    Raises:
        QreditError: it is missing, cannot be read, or lacks a column.
    """
    import pyarrow.parquet  # type: ignore[import-untyped]

    if not file.is_file():
        raise QreditError(f"no data file {file}; `qredit verl-data` writes one")
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise QreditError(f"{file}: cannot be read as parquet ({summarize_error(error)})") from None
    for column in ("prompt", "reward_model", "data_source"):
        if not rows or column not in rows[0]:
            raise QreditError(f"{file}: no column '{column}'; `qredit verl-data` writes what is read")
    return rows
