"""The files of a run, looked through before Ray starts."""

from pathlib import Path
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]

from qredit.data.check_rows import check_rows
from qredit.data.rows import RowNames
from qredit.tasks.cells import drop_nulls
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error
from qredit.verl.settings import VerlSettings


def check_data(data: Any, settings: VerlSettings, tokenizer: Any) -> None:
    """Refuse files that a run would stumble over.

    Args:
        data: verl's options of that name.
        settings: of the run.
        tokenizer: of the model.

    Raises:
        QreditError: a file that is missing or no parquet, a column that is missing; as `check_rows`.
    """
    likely, tokens = settings.alias_use.in_likelihood, settings.make_format(tokenizer)
    for name in ("train_files", "val_files"):
        given = data[name]
        for file in [given] if isinstance(given, str) else list(given):
            rows = read_rows(Path(str(file)).expanduser())
            infos = [row.get("extra_info") or {} for row in rows]
            check_rows(
                [settings.prompt_of(drop_nulls(row["prompt"]), tokenizer) for row in rows],
                [row["reward_model"]["ground_truth"] for row in rows],
                [list(info.get("aliases") or ()) if likely else [] for info in infos],
                RowNames.of([info.get("id", row) for row, info in enumerate(infos)], len(rows), str(file)),
                tokens,
                dict(data.get("apply_chat_template_kwargs") or {}),
                ("data.max_prompt_length", int(data.max_prompt_length)),
            )


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file.

    Raises:
        QreditError: it is missing, cannot be read, or lacks a column.
    """
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
