"""Rewards that depend on how long a rollout is: stages that stand between reward() and the group's statistics.

The length of a rollout is the number of its sampled tokens. A rollout is right where its coefficient is above 0.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, State, StatefulCredit
from qredit.core.schedule import Schedule, check_range
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
class charge_length_above(StatefulCredit):
    """c_i ← c_i - λ · max(0, |o_i| / target - 1), λ a price that settles where the mean length is the target.

        λ ← clip(λ + rate · (mean |o| / target - 1), 0, most)   after each optimiser step

    Dual ascent on "as much reward as possible, with a mean length of at most the target": λ rises while rollouts are
    too long in the mean, and falls to 0 where they are short enough. What is charged is the excess of a rollout alone,
    so that none earns anything by being short. The mean is that of the rows that count, over all processes.

    Args:
        target: sampled tokens of a rollout in the mean.
        rate: how fast λ moves, in rewards for each step at twice the target.
        most: the largest λ.
        start: λ before the first step.

    Source: arXiv 2512.21540 (Leash), known from its abstract and others' summaries, which tell the constraint, the
    ascent and the one-sided charge. They tell no rate and no bounds.
    """

    target: int
    rate: float
    most: float
    start: float = 0.0

    def __post_init__(self) -> None:
        check_range("target", self.target, 1, math.inf)
        check_range("rate", self.rate, 0.0, math.inf)
        check_range("most", self.most, 0.0, math.inf)
        check_range("start", self.start, 0.0, self.most)

    def init(self) -> State:
        return {"price": self.start}

    def statistics(self, coefficient: Coefficient, batch: RolloutBatch) -> State:
        _, keep = coefficient.per_rollout(self)
        return {"tokens": float(torch.where(keep, lengths(batch), 0.0).sum()), "rollouts": float(keep.sum())}

    def update(self, state: State, statistics: State) -> State:
        if statistics["rollouts"] == 0:
            return state
        excess = statistics["tokens"] / statistics["rollouts"] / self.target - 1
        return {"price": min(max(state["price"] + self.rate * excess, 0.0), self.most)}

    def apply(self, coefficient: Coefficient, batch: RolloutBatch, state: State) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        return coefficient.with_row(value - state["price"] * (lengths(batch) / self.target - 1).clamp(min=0.0))


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


@dataclass(frozen=True)
class mix_in_length(Credit):
    """c_i ← (1 - weight) · c_i + weight · peak · max(0, 1 - | |o_i|/B - 1 |),   B = max(1, ⌊budget⌋).

    A triangle over the length: 0 for an empty rollout, `peak` at the budget of B tokens, 0 from 2B on. So a rollout is
    paid for using its budget, and not for going beyond it, whether or not it is right.

    Args:
        weight: of the length, 0 … 1.
        peak: what a rollout of B tokens is paid.
        budget: sampled tokens; a schedule that falls makes rollouts shorter while the run goes on.

    Source: arXiv 2509.24375 (RMT), by notes of others.
    """

    weight: float
    peak: float
    budget: float | Schedule

    def __post_init__(self) -> None:
        check_range("weight of mix_in_length", self.weight, 0.0, 1.0)
        check_range("peak of mix_in_length", self.peak, 0.0, math.inf)
        check_range("budget of mix_in_length", self.budget, 0.0, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        assert not isinstance(self.budget, Schedule), "schedules are resolved before a batch is credited"
        most = max(1, math.floor(round(self.budget, 9)))  # 800 · 0.2 may come out below 160
        triangle = (1.0 - (lengths(batch) / most - 1.0).abs()).clamp(min=0.0)
        return coefficient.with_row((1.0 - self.weight) * value + self.weight * self.peak * triangle)
