"""Credit that is a function of how many rollouts of a group are right: pass@k, the truncated log, any goal F(p)."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Stage
from qredit.core.schedule import check_range
from qredit.credit.goal import Goal
from qredit.stats.division import divide_or_zero
from qredit.utils.errors import QreditError

Advantages = tuple[Float[Tensor, " B"], Float[Tensor, " B"]]


def find_right_rollouts(coefficient: Coefficient, stage: Stage) -> tuple[Bool[Tensor, " B"], Bool[Tensor, " B"]]:
    """Which rollouts are right, and which count at all.

    Raises:
        QreditError: the coefficient so far is not a reward of 0 or 1.
    """
    value, keep = coefficient.per_rollout(stage)
    graded = value[keep & (value != 0) & (value != 1)]
    if len(graded):
        raise QreditError(f"{stage} needs rewards of 0 or 1, got {float(graded[0]):g}; it stands right after reward()")
    return keep & (value == 1), keep


def probability_all_among(some: Float[Tensor, " B"], every: Float[Tensor, " B"], draws: int) -> Float[Tensor, " B"]:
    """C(some, draws) / C(every, draws): the chance that `draws` without replacement all fall among `some` of `every`.

    1 for no draw, 0 where there are fewer than `draws`.

    Args:
        some: (B,) how many count.
        every: (B,) how many there are.
        draws: how many are drawn.
    """
    chance = torch.ones_like(some)
    for drawn in range(draws):
        chance = chance * (some - drawn).clamp(min=0) / (every - drawn).clamp(min=1)
    return chance


@dataclass(frozen=True)
class _ByCount(Credit):
    """One credit for every right rollout of a group and one for every wrong one, from their counts."""

    scope = Scope.GROUP

    @abstractmethod
    def advantages(self, right: Float[Tensor, " B"], size: Float[Tensor, " B"]) -> Advantages:
        """The credit of a right and of a wrong rollout where `right` of `size` rollouts are right."""

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        is_right, keep = find_right_rollouts(coefficient, self)
        up, down = self.advantages(batch.groups.count(is_right), batch.groups.count(keep))
        return coefficient.with_row(torch.where(is_right, up, down))


@dataclass(frozen=True)
class climb(_ByCount):
    """Credit that climbs F(p), p the success rate: (1 - p̂)·F'(p̂) for a right rollout, -p̂·F'(p̂) for a wrong one.

    Any credit with one value A⁺ for right rollouts and one A⁻ for wrong ones that sums to 0 over the group is of this
    form: with ω = p̂ A⁺ the gradient is ω times the difference of the mean scores of right and wrong rollouts, and
    ∇p is p(1-p) times it, so F' = ω / (p(1-p)). A plug-in: p̂ is the group's own rate, own rollout included.

    Exactly 0 in groups that are all right or all wrong, where one of the two means is missing. Rewards must be 0 or 1.
    """

    goal: Goal

    def __post_init__(self) -> None:
        if not isinstance(self.goal, Goal):
            raise QreditError(f"climb takes a goal with a method slope(p), such as arcsine(), got {self.goal!r}")

    def advantages(self, right: Float[Tensor, " B"], size: Float[Tensor, " B"]) -> Advantages:
        mixed = (right > 0) & (right < size)
        p = torch.where(mixed, right / size.clamp(min=1), 0.5)
        slope = torch.where(mixed, self.goal.slope(p), 0.0)
        return (1 - p) * slope, -p * slope


@dataclass(frozen=True)
class credit_pass_at(_ByCount):
    """The unbiased credit of pass@k, 1 - (1 - p)^k, with an unbiased leave-one-out baseline.

        c_i = k · r_i · C(wrong, k-1) / C(M-1, k-1)  -  k · (s_i/(M-1)) · C(M-1-s_i, k-1) / C(M-2, k-1)

    s_i = right rollouts among the others. The first term counts the sets of k in which rollout i alone is right. The
    second is the mean of the first over the others, computed in a group without rollout i, so it does not depend on
    r_i; the mean of the others' own first terms would, through the count of wrong ones, and is biased. k = 1 is RLOO.

    With M = k there is no baseline; with M < k nothing can be said of k rollouts and the credit is 0. Exactly 0 in
    groups all right or all wrong where M > k. Rewards must be 0 or 1.
    """

    k: int

    def __post_init__(self) -> None:
        check_range("k", self.k, 1, math.inf)

    def advantages(self, right: Float[Tensor, " B"], size: Float[Tensor, " B"]) -> Advantages:
        alone_right = self.k * probability_all_among(size - right, size - 1, self.k - 1)
        return alone_right - self._baseline(right - 1, size - 1), -self._baseline(right, size - 1)

    def _baseline(self, right: Float[Tensor, " B"], others: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        share = right / others.clamp(min=1)
        return self.k * share * probability_all_among(others - right, others - 1, self.k - 1)


@dataclass(frozen=True)
class shape_pass_at(_ByCount):
    """The mean credit of the groups of k that a rollout could stand in, standardised over all groups of k.

        c⁺ = f / (σ + epsilon),   c⁻ = (f - C(wrong-1, k-1)/C(M-1, k-1)) / (σ + epsilon)

    f = C(wrong, k)/C(M, k), the share of sets of k that hold no right rollout, σ = √(f(1-f)). Sums to 0 over the group.
    In the limit of large groups it climbs F(p) = (2/k)·arcsin√(1 - (1-p)^k).

    Exactly 0 in groups without a right rollout, with fewer than k wrong ones, or with fewer than k in all. Rewards must
    be 0 or 1.
    """

    k: int
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check_range("k", self.k, 1, math.inf)

    def advantages(self, right: Float[Tensor, " B"], size: Float[Tensor, " B"]) -> Advantages:
        wrong = size - right
        failing = probability_all_among(wrong, size, self.k)
        scale = (failing * (1 - failing)).sqrt() + self.epsilon
        with_this_one = probability_all_among(wrong - 1, size - 1, self.k - 1)
        return divide_or_zero(failing, scale), divide_or_zero(failing - with_this_one, scale)


@dataclass(frozen=True)
class credit_truncated_log(_ByCount):
    """The unbiased credit of log p truncated at `order` T: J_T(p) = -Σ_{k=1..T} (1-p)^k / k, ∇J_T = Σ (1-p)^{k-1} ∇p.

        c⁺ = 1,   c⁻ = -Σ_{k=2..T} C(wrong-1, k-1) / C(M-1, k-1)

    A wrong rollout is credited with minus the chance that k-1 others are wrong too. T = 1 is REINFORCE without a
    baseline, T = M the longest that a group of M can estimate; in smaller groups T is M.

    Not 0 in groups that are all right (1) or all wrong (1 - T): both cancel in expectation only. Rewards must be 0 or
    1.
    """

    order: int

    def __post_init__(self) -> None:
        check_range("order", self.order, 1, math.inf)

    def advantages(self, right: Float[Tensor, " B"], size: Float[Tensor, " B"]) -> Advantages:
        down = torch.zeros_like(right)
        for others in range(1, self.order):
            down = down - probability_all_among(size - right - 1, size - 1, others)
        return torch.ones_like(right), down


@dataclass(frozen=True)
class weigh_right_and_wrong(Credit):
    """c_i ← `right` for a reward of 1, `wrong` for a reward of 0: no baseline, no scale. Rewards must be 0 or 1."""

    right: float
    wrong: float

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        is_right, keep = find_right_rollouts(coefficient, self)
        one = torch.where(keep, 1.0, 0.0).to(coefficient.value)
        return coefficient.with_row(torch.where(is_right, self.right * one, self.wrong * one))
