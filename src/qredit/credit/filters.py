"""Rows and groups that are left out of an update, or whose credit is set to 0.

A row that is left out has coefficient 0, no part in later statistics and no weight in the reduction's denominator
(`mean_per_token` and `sum_per_rollout` count weights; `mean_per_rollout` and `sum_per_length` divide by all rollouts).
Only scored rows that end in a sampled answer are judged: rows of a gold answer carry likelihood gradient whatever their
coefficient, and are never touched.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.down_sample import select_max_variance
from qredit.utils.errors import QreditError


def drop_rows(coefficient: Coefficient, rows: Bool[Tensor, " B"]) -> Coefficient:
    """The coefficient without these rows, in value, statistics and denominator."""
    stays = ~rows[:, None]
    keep = stays if coefficient.keep is None else coefficient.keep & stays
    weight = stays.double() if coefficient.weight is None else coefficient.weight * stays
    return replace(coefficient, keep=keep, weight=weight)


def select_filterable(
    coefficient: Coefficient, batch: RolloutBatch, stage: Credit
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """The one number of each rollout, and the rows that a filter may leave out.

    Args:
        coefficient: as the stages before made it: value (B, 1) or (B, T), float64.
        batch: whole groups, with the fields that are needed.
        stage: named in errors.
    """
    value, keep = coefficient.per_rollout(stage)
    return value, keep & ~batch.has_answer


@dataclass(frozen=True)
class leave_out_zeros(Credit):
    """Leave out the rows whose coefficient is exactly 0, and those that were not scored."""

    scope = Scope.BATCH

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, rows = select_filterable(coefficient, batch, self)
        return drop_rows(coefficient, ~batch.has_answer & ~(rows & (value != 0)))


@dataclass(frozen=True)
class leave_out_equal_groups(Credit):
    """Leave out the groups whose coefficients are all equal: dynamic sampling's effect inside one step (2503.14476).

    No other group is sampled in their place. A group of one is equal. A whole step of equal groups has loss 0.
    """

    scope = Scope.BATCH

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, rows = select_filterable(coefficient, batch, self)
        return drop_rows(coefficient, ~batch.has_answer & batch.groups.is_constant(value, rows))


@dataclass(frozen=True)
class keep_spread_groups(Credit):
    """Keep the `share` of groups whose coefficients have the largest standard deviation: ⌈share · groups⌉ of them.

    Groups without a scored row are not counted. Among equals the group with the smaller number is kept.
    """

    share: float
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, rows = select_filterable(coefficient, batch, self)
        groups = batch.groups
        std = torch.where(groups.count(rows) > 0, groups.std(value, rows), -1.0)
        by_group = groups.dense(std, -1.0).amax(1)
        wanted = math.ceil(self.share * int((by_group >= 0).sum()) - 1e-9)
        place = torch.empty_like(groups.size)
        place[by_group.argsort(descending=True, stable=True)] = torch.arange(len(place), device=place.device)
        return drop_rows(coefficient, rows & (place >= wanted)[groups.index])


@dataclass(frozen=True)
class keep_most_varied(Credit):
    """Keep the `rollouts` of each group whose coefficients have the largest variance; smaller groups stay whole.

    Before `center_by_group` later statistics are those of the kept rollouts, after it those of the whole group. Among
    equal coefficients the earlier row stays. It reads nothing but the coefficient; `keep_widest_of_group` prefers by
    entropy and leaves the denominator alone.

    Source: the rule of arXiv 2504.13818, maximum-variance down-sampling, known at second hand; ties are decided here.
    """

    rollouts: int
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("rollouts", self.rollouts, 1, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, rows = select_filterable(coefficient, batch, self)
        dropped = rows.clone()
        for number in batch.groups.index[rows].unique():
            members = ((batch.groups.index == number) & rows).nonzero()[:, 0]
            dropped[members] = ~select_max_variance(value[members], -members.to(value), self.rollouts)
        return drop_rows(coefficient, dropped)


@dataclass(frozen=True)
class zero_groups(Credit):
    """Set the credit of degenerate groups to 0, by the rewards of their scored rows: say of which.

    Methods disagree about such groups: RLOO keeps the reward of a rollout alone, NSR pushes where all are wrong. Their
    tokens still count in the denominator; `leave_out_equal_groups` leaves them out there too.

    Args:
        alone: one scored rollout.
        equal: two or more, all of one reward.
        all_right: one or more, all of reward 1.
        all_wrong: one or more, all of reward 0.

    Raises QreditError where none is chosen.
    """

    alone: bool = False
    equal: bool = False
    all_right: bool = False
    all_wrong: bool = False
    needs = frozenset({"reward"})
    scope = Scope.GROUP

    def __post_init__(self) -> None:
        if not (self.alone or self.equal or self.all_right or self.all_wrong):
            raise QreditError("zero_groups: say which groups: alone, equal, all_right, all_wrong")

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        reward = batch.require("reward", str(self)).double()
        rows = ~reward.isnan() & ~batch.has_answer
        groups = batch.groups
        size, equal = groups.count(rows), groups.is_constant(reward, rows)
        chosen = torch.zeros_like(rows)
        for wanted, kind in (
            (self.alone, size == 1),
            (self.equal, equal & (size > 1)),
            (self.all_right, equal & (reward == 1)),
            (self.all_wrong, equal & (reward == 0)),
        ):
            chosen = chosen | (kind & wanted)
        return replace(coefficient, value=torch.where((rows & chosen)[:, None], 0.0, coefficient.value))
