"""From a per-token loss to a scalar: numerator and denominator apart.

The denominator counts the rows or tokens of a whole optimiser step, over micro-batches and processes, so it is known
before any gradient: the gradient never depends on how the step was cut up.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.schedule import check_range


class Reduction(ABC):
    """loss = Σ over micro-batches of numerator / Σ of denominator.

    Attributes:
        counts_rollouts: the denominator is a function of the number of rollouts alone, so that it is known even for
            rollouts that are yet to be sampled.
    """

    counts_rollouts = True

    @abstractmethod
    def numerator(
        self, loss: Float[Tensor, "B T"], batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None
    ) -> Float[Tensor, ""]:
        """The part of the sum that these rows contribute.

        Args:
            loss: (B, T) of each token, with gradient.
            batch: whole groups, with the fields that are needed.
            weight: (B, T) of each token in the denominator; None is 1 everywhere.
        """

    @abstractmethod
    def denominator(self, batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None) -> float:
        """What these rows contribute to the count that the sum is divided by."""


@dataclass(frozen=True)
class sum_per_rollout(Reduction):
    """Σ over tokens, divided by the number of rollouts: the mean over rows of a sequence's log-likelihood.

    The convention of the J_Q estimators: the coefficient of a row stands under an explicit 1/M. Never a token mean,
    which would weigh an answer by one over its length. With a weight, a rollout counts the mean weight of its tokens.
    """

    def numerator(
        self, loss: Float[Tensor, "B T"], batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None
    ) -> Float[Tensor, ""]:
        return (loss * batch.trainable).sum()

    def denominator(self, batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None) -> float:
        if weight is None:
            return float(batch.rollouts)
        counted, tokens = _token_weight(batch, weight, torch.float64), batch.counted.sum(1)
        per_row = counted.sum(1) / tokens.clamp(min=1)
        return float(per_row.sum()) * batch.rollouts / len(per_row)


@dataclass(frozen=True)
class mean_per_rollout(Reduction):
    """The mean over each row's tokens, averaged over rollouts: (1/N) Σ_i (1/|o_i|) Σ_t, GRPO as published."""

    def numerator(
        self, loss: Float[Tensor, "B T"], batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None
    ) -> Float[Tensor, ""]:
        counted = _token_weight(batch, weight, loss.dtype).sum(1)
        return ((loss * batch.trainable).sum(1) / torch.where(counted > 0, counted, 1.0)).sum()

    def denominator(self, batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None) -> float:
        return float(batch.rollouts)


@dataclass(frozen=True)
class mean_per_token(Reduction):
    """The mean over all tokens of the optimiser step, DAPO's aggregation: Σ_i Σ_t / Σ_i |o_i|."""

    counts_rollouts = False

    def numerator(
        self, loss: Float[Tensor, "B T"], batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None
    ) -> Float[Tensor, ""]:
        return (loss * batch.trainable).sum()

    def denominator(self, batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None) -> float:
        return float(_token_weight(batch, weight, torch.float64).sum())


@dataclass(frozen=True)
class sum_per_length(Reduction):
    """Σ over tokens, divided by rollouts × a constant `length`, Dr.GRPO's aggregation: no bias towards short rows."""

    length: int

    def __post_init__(self) -> None:
        check_range("length", self.length, 1, math.inf)

    def numerator(
        self, loss: Float[Tensor, "B T"], batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None
    ) -> Float[Tensor, ""]:
        return (loss * batch.trainable).sum()

    def denominator(self, batch: RolloutBatch, weight: Float[Tensor, "B T"] | None = None) -> float:
        return float(batch.rollouts * self.length)


def _token_weight(batch: RolloutBatch, weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    counted = batch.counted.to(dtype)
    return counted if weight is None else counted * weight.to(dtype)
