"""The question of a row in the form that verl reads, such as `qredit verl-data` writes."""

from collections.abc import Mapping
from typing import Any

from qredit.tasks.base import Example

_NOT_COLUMNS = frozenset({"split", "index", "id", "aliases"})


def read_verl_row(row: Mapping[str, Any], aliases: bool) -> Example:
    """The question of a row; its prompt is left to those who render it.

    Args:
        row: with reward_model.ground_truth and extra_info, whose further keys are columns.
        aliases: whether other right answers are kept.
    """
    info = dict(row.get("extra_info") or {})
    return Example(
        prompt="",
        answer=str(row["reward_model"]["ground_truth"]),
        id=str(info.get("id", "")),
        aliases=tuple(info.get("aliases") or ()) if aliases else (),
        columns={name: value for name, value in info.items() if name not in _NOT_COLUMNS},
    )
