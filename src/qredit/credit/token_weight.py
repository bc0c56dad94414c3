"""Multiplying the coefficient of some tokens: what the stages that weigh tokens share."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient


def select_tokens(coefficient: Coefficient, batch: RolloutBatch) -> Bool[Tensor, "B T"]:
    """The tokens that statistics run over: drawn from the policy, and kept by the stages before."""
    return batch.sampled if coefficient.keep is None else batch.sampled & coefficient.keep


def scale_tokens(coefficient: Coefficient, factor: Float[Tensor, "#B #T"], where: Bool[Tensor, "B T"]) -> Coefficient:
    """c ← factor · c on the tokens that `where` marks, whatever the factor is elsewhere.

    Args:
        coefficient: as the stages before made it: value (B, 1) or (B, T), float64.
        factor: (B, T), or a shape that expands to it.
        where: (B, T) tokens that are scaled.
    """
    return replace(coefficient, value=torch.where(where, coefficient.value * factor, coefficient.value))
