"""The files of a run, looked through before Ray starts."""

from pathlib import Path
from typing import Any

from qredit.data.check_rows import check_rows
from qredit.data.rows import RowNames
from qredit.data.verl_rows import read_verl_rows
from qredit.tasks.cells import drop_nulls
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
    likely, tokens = settings.alias_use.in_likelihood, settings.format.make(tokenizer)
    for name in ("train_files", "val_files"):
        given = data[name]
        for file in [given] if isinstance(given, str) else list(given):
            rows = read_verl_rows(Path(str(file)).expanduser())
            infos = [row.get("extra_info") or {} for row in rows]
            check_rows(
                [settings.format.prompt_of(drop_nulls(row["prompt"]), tokenizer) for row in rows],
                [row["reward_model"]["ground_truth"] for row in rows],
                [list(info.get("aliases") or ()) if likely else [] for info in infos],
                RowNames.of([info.get("id", row) for row, info in enumerate(infos)], len(rows), str(file)),
                tokens,
                dict(data.get("apply_chat_template_kwargs") or {}),
                ("data.max_prompt_length", int(data.max_prompt_length)),
            )
