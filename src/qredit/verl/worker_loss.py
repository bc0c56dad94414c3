"""The loss in verl's workers: `Objective.numerators` of a micro-batch, over denominators of the whole step."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from verl.utils import tensordict_utils
from verl.workers.utils.padding import no_padding_2_padding

from qredit.core.objective import Objective, sum_terms
from qredit.engine.columns import PREFIX, read_columns
from qredit.objectives.parsing import parse

OBJECTIVE, PROGRESS, DENOMINATORS = f"{PREFIX}objective", f"{PREFIX}progress", f"{PREFIX}denominators"
"""What is said of a whole step, beside its columns."""


def compute_loss(model_output: Mapping[str, Tensor], data: Any, dp_group: Any = None) -> tuple[Tensor, dict[str, Any]]:
    """The loss of a micro-batch, as verl's engines call it.

    Args:
        model_output: nested log_probs and, where it was asked for, entropy of prompts and responses.
        data: verl's micro-batch with our columns.
        dp_group: verl's, not used: the denominators are those of all workers.

    Returns:
        The loss, whose gradient verl adds over micro-batches and averages over workers; no further metrics.
    """
    logp = no_padding_2_padding(model_output["log_probs"], data)
    told = model_output.get("entropy")
    entropy = None if told is None else no_padding_2_padding(told, data)
    columns = {
        name: _pad(value, logp) for name, value in data.items() if name.startswith(PREFIX) and isinstance(value, Tensor)
    }
    batch, credited = read_columns(columns, logp, entropy)
    text, progress, denominators, workers = (
        tensordict_utils.get(data, key=key) for key in (OBJECTIVE, PROGRESS, DENOMINATORS, "dp_size")
    )
    numerators = make_objective(text, progress).numerators(logp, batch, credited)
    return workers * sum_terms(numerators, denominators), {}


@lru_cache(maxsize=8)
def make_objective(text: str, progress: float) -> Objective:
    """The plain objective of that moment of training."""
    return parse(text).at(progress)


def _pad(column: Tensor, like: Tensor) -> Tensor:
    """A column as (B, T); those that hold one token for each row have lost their nesting on the way."""
    padded = torch.nested.to_padded_tensor(column, 0) if column.is_nested else column.reshape(len(like), -1)
    missing = like.shape[1] - padded.shape[1]
    return torch.nn.functional.pad(padded, (0, missing))
