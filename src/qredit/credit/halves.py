"""A group cut in two by something measured of its rollouts, each half a baseline for itself or for the other."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.schedule import Schedule, check_range
from qredit.stats.groups import Groups
from qredit.utils.errors import QreditError

RowValues = Float[Tensor, " B"]
RowMask = Bool[Tensor, " B"]


@dataclass(frozen=True)
class center_by_halves(Credit):
    """c_i ← μ·(c_i - mean of the other half) + (1-μ)·(c_i - mean of the own half), halves by `metric` inside the group.

    Sorted by the metric, the first ⌊M/2⌋ rollouts are the low half; among equals the earlier row is the lower. Halves
    of equal size and μ = ½ give c_i - mean of the group.

    Args:
        metric: a source of one number per rollout, such as mean_entropy() or sampled_length().
        between: μ, a number, a schedule, or a source of one number per rollout such as batch_mean_reward().
        low, high: factors on the coefficients of the low and of the high half, in the part between the halves only.

    A rollout alone in its group keeps μ·high·c_i + (1-μ)·c_i. Exactly 0 where two or more rollouts are all equal and
    low = high = 1.
    """

    metric: Source
    between: float | Schedule | Source = 1.0
    low: float = 1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.between, Source):
            check_range("between", self.between, 0.0, 1.0)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset[str]().union(*(source.needs for source in self._sources))

    @property
    def scope(self) -> Scope:
        return max(Scope.GROUP, *(source.scope for source in self._sources))

    @property
    def _sources(self) -> tuple[Source, ...]:
        return (self.metric, self.between) if isinstance(self.between, Source) else (self.metric,)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        low = select_low_half(self.metric(batch).per_rollout(self)[0], keep, batch.groups)
        weighed = torch.where(low, self.low * value, self.high * value)
        other, own = (
            mean_of_other_half(weighed, keep, low, batch.groups),
            mean_of_own_half(value, keep, low, batch.groups),
        )
        share = self._share(batch)
        return coefficient.with_row(share * (weighed - other) + (1 - share) * (value - own))

    def _share(self, batch: RolloutBatch) -> RowValues | float:
        if isinstance(self.between, Schedule):
            raise QreditError(f"between of {self} is a schedule; take objective.at(progress) first")
        if isinstance(self.between, Source):
            share = self.between(batch).per_rollout(self)[0]
            if bool(((share < 0) | (share > 1)).any()):
                raise QreditError(f"between of {self} must lie between 0 and 1, got {float(share.min()):g} or more")
            return share
        return float(self.between)


def select_low_half(metric: RowValues, keep: RowMask, groups: Groups) -> RowMask:
    """The ⌊n/2⌋ kept rows of each group with the smallest metric; the earlier row first among equals.

    Args:
        metric: (B,) what rows are ordered by.
        keep: (B,) rows that count.
        groups: which rows belong together.
    """
    dense = groups.dense(torch.where(keep, metric, torch.inf), torch.inf)
    order = dense.argsort(dim=1, stable=True)
    rank = torch.empty_like(dense).scatter_(1, order, torch.arange(dense.shape[1]).to(dense).expand_as(dense))
    return keep & (groups.rows(rank) < (groups.count(keep) / 2).floor())


def mean_of_own_half(value: RowValues, keep: RowMask, low: RowMask, groups: Groups) -> RowValues:
    """For each row, the mean of its own half; 0 for a rollout alone in its group.

    Args:
        value: (B,) a number of each row.
        keep: (B,) rows that count.
        low: (B,) rows of the lower half of their group.
        groups: which rows belong together.
    """
    own = torch.where(low, _mean(value, keep & low, groups), _mean(value, keep & ~low, groups))
    return torch.where(groups.count(keep) > 1, own, 0.0)


def mean_of_other_half(value: RowValues, keep: RowMask, low: RowMask, groups: Groups) -> RowValues:
    """For each row, the mean of the other half; 0 for a rollout alone in its group.

    Args:
        value: (B,) a number of each row.
        keep: (B,) rows that count.
        low: (B,) rows of the lower half of their group.
        groups: which rows belong together.
    """
    return torch.where(low, _mean(value, keep & ~low, groups), _mean(value, keep & low, groups))


def _mean(value: RowValues, keep: RowMask, groups: Groups) -> RowValues:
    """The mean over a group's kept rows, exactly their value where they are equal, 0 where there is none."""
    largest = groups.rows(groups.dense(torch.where(keep, value, -torch.inf), -torch.inf).amax(1, keepdim=True))
    mean = groups.mean(value, keep)
    return torch.where(groups.is_constant(value, keep) & (groups.count(keep) > 0), largest, mean)


@dataclass(frozen=True)
class cosine_restarts(Schedule):
    """From `before` to `start` in a straight line over the warm-up, then `start` → `end` along half a cosine, again and
    again, each time over `period` steps.

        step s < warmup:  before + (start - before)·(s + 1)/warmup
        later:            end + (start - end)·(1 + cos(π·((s - warmup) mod period)/period))/2

    Args:
        total: steps of the run, which progress is a share of.

    Source: the schedules of arXiv 2509.23962's code, in steps; see `canon`.
    """

    total: int
    start: float
    end: float
    before: float
    warmup: int = 30
    period: int = 40

    def __post_init__(self) -> None:
        for name, least in (("total", 1), ("warmup", 0), ("period", 1)):
            check_range(name, getattr(self, name), least, math.inf)

    def at(self, progress: float) -> float:
        step = round(progress * self.total)
        if step < self.warmup:
            return self.before + (self.start - self.before) * (step + 1) / self.warmup
        turn = math.pi * ((step - self.warmup) % self.period) / self.period
        return self.end + (self.start - self.end) * (1 + math.cos(turn)) / 2

    @property
    def extremes(self) -> tuple[float, float]:
        return min(self.start, self.end, self.before), max(self.start, self.end, self.before)
