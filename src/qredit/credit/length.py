"""Rewards that depend on how long a rollout is: stages that stand between reward() and the group's statistics.

The length of a rollout is the number of its sampled tokens. A rollout is right where its coefficient is above 0.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.schedule import check_range
from qredit.utils.errors import QreditError


def lengths(batch: RolloutBatch) -> Float[Tensor, " B"]:
    """Sampled tokens of each row."""
    return batch.sampled.sum(1).double()


@dataclass(frozen=True)
class subtract_overlong(Credit):
    """c_i ← c_i - strength · clip((|o_i| - (length - buffer)) / buffer, 0, 1): DAPO's soft overlong punishment.

    Nothing up to length - buffer tokens, then a straight line to `strength` at `length` tokens and beyond. With
    strength 1 it is eq. 13 of arXiv 2503.14476.

    Raises QreditError for a buffer outside 1 … length.
    """

    length: int
    buffer: int
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.buffer <= self.length:
            raise QreditError(f"buffer must lie between 1 and the length {self.length}, got {self.buffer}")

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        over = (lengths(batch) - (self.length - self.buffer)) / self.buffer
        return coefficient.with_row(value - self.strength * over.clamp(0.0, 1.0))


@dataclass(frozen=True)
class subtract_length(Credit):
    """c_i ← c_i - strength · |o_i| / length: a price per token, in units of the reward per `length` tokens. Ours."""

    strength: float
    length: int

    def __post_init__(self) -> None:
        check_range("length", self.length, 1, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        return coefficient.with_row(value - self.strength * lengths(batch) / self.length)


@dataclass(frozen=True)
class grade_by_length(Credit):
    """c_i ← long + (short - long) · (1 + cos(π · min(|o_i|/length, 1))) / 2, (short, long) by whether c_i is right.

    Half a cosine from the grade of an empty rollout to that of one of `length` tokens, which longer ones keep: a right
    rollout is worth more when short, a wrong one costs less when long. The cosine reward of arXiv 2502.03373, appendix
    C.1, with the grades that TRL's reward function has by default.
    """

    length: int
    right_short: float = 1.0
    right_long: float = 0.5
    wrong_short: float = -1.0
    wrong_long: float = -0.5

    def __post_init__(self) -> None:
        check_range("length", self.length, 1, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        falling = (1.0 + torch.cos(math.pi * (lengths(batch) / self.length).clamp(max=1.0))) / 2.0
        right = self.right_long + (self.right_short - self.right_long) * falling
        wrong = self.wrong_long + (self.wrong_short - self.wrong_long) * falling
        return coefficient.with_row(torch.where(value > 0, right, wrong))
