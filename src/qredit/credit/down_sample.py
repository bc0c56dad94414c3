"""Learning from fewer rollouts and tokens: the most different rollouts, the most telling tokens."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import Schedule, check_range
from qredit.credit.token_weight import scale_tokens, select_tokens
from qredit.stats.masked import apply_mask, quantile, row_mean
from qredit.utils.errors import QreditError

_DIGITS, _ROUNDING = 9, 1e-9  # advantages of like groups differ in their last bits


def select_max_variance(value: Float[Tensor, " N"], prefer: Float[Tensor, " N"], count: int) -> Bool[Tensor, " N"]:
    """The `count` numbers whose variance is largest: always some of the smallest and some of the largest.

    Every split is tried on sums over the sorted numbers. Among splits of one variance the one with more of the largest
    is taken, among equal numbers the one with the larger `prefer`: no choice depends on the order of the rows. Numbers
    that agree in nine digits are equal.

    Args:
        value: (N,) numbers to choose from.
        prefer: (N,) among equals the larger comes first.
        count: how many are chosen.
    """
    if count >= len(value):
        return torch.ones_like(value, dtype=torch.bool)
    size = value.abs().max()
    value = (value / torch.where(size > 0, size, 1.0)).round(decimals=_DIGITS)
    by_preference = prefer.argsort(descending=True, stable=True)
    falling = by_preference[value[by_preference].argsort(descending=True, stable=True)]
    rising = by_preference[value[by_preference].argsort(stable=True)]
    many = _count_largest(value[falling], count)
    chosen = torch.zeros_like(value, dtype=torch.bool)
    chosen[falling[:many]] = True
    chosen[rising[~chosen[rising]][: count - many]] = True
    return chosen


def _count_largest(falling: Float[Tensor, " N"], count: int) -> int:
    """How many of the largest stand in the widest subset; the numbers come in falling order."""
    centred = falling - falling.mean()
    sums, squares = (_sums_of_ends(power, count) for power in (centred, centred.square()))
    variance = squares / count - (sums / count).square()
    return int((variance >= variance.max() - _ROUNDING).nonzero().max())


def _sums_of_ends(value: Float[Tensor, " N"], count: int) -> Float[Tensor, " J"]:
    """For j = 0 … count, the sum of the first j and the last count - j numbers."""
    start = torch.nn.functional.pad(value[:count].cumsum(0), (1, 0))
    end = torch.nn.functional.pad(value.flip(0)[:count].cumsum(0), (1, 0))
    return start + end.flip(0)


def _require_number(value: float | Schedule, stage: Credit) -> float:
    if isinstance(value, Schedule):
        raise QreditError(f"{stage} holds a schedule; take objective.at(progress) first")
    return value


@dataclass(frozen=True)
class _KeepMaxVariance(Credit):
    """What both scopes share: of each set of rollouts, those whose coefficients vary most; equals by mean entropy."""

    rollouts: float | Schedule
    needs = frozenset({"entropy"})

    def __post_init__(self) -> None:
        check_range("rollouts", self.rollouts, 1.0, math.inf)

    def chosen(self, coefficient: Coefficient, batch: RolloutBatch, sets: Int[Tensor, " B"]) -> Bool[Tensor, "B 1"]:
        """The rollouts that stay, chosen apart in each set; rows with one number in `sets` form one."""
        value, keep = coefficient.per_rollout(self)
        prefer = row_mean(batch.require("entropy", str(self)).double(), batch.sampled)
        found = torch.zeros_like(keep)
        for number in sets[keep].unique():
            rows = ((sets == number) & keep).nonzero()[:, 0]
            found[rows] = select_max_variance(value[rows], prefer[rows], round(_require_number(self.rollouts, self)))
        return found[:, None]


@dataclass(frozen=True)
class keep_widest_of_group(_KeepMaxVariance):
    """Keeps the `rollouts` of each group whose coefficients have the largest variance; the others end with 0.

    Nothing is normalised again. The reduction goes on counting the rollouts left out, unless `keep_widest_of_batch`
    follows. Among rollouts of one coefficient those of higher mean entropy stay. Smaller groups are kept whole.

    Source: arXiv 2509.22115, known from others' notes. The tie rule is ours; the search is exact.
    """

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        return replace(coefficient, keep=self.chosen(coefficient, batch, batch.groups.index))


@dataclass(frozen=True)
class keep_widest_of_batch(_KeepMaxVariance):
    """Keeps the `rollouts` of the whole optimiser step whose coefficients have the largest variance.

    What is left out, here or before, counts no more in the reduction's denominator: the step is as if it had been
    sampled without it. As `keep_widest_of_group` otherwise. `rollouts` is rounded, so that a schedule may pass through
    any number.

    Source: arXiv 2509.22115, known from others' notes, which leave the denominator open.
    """

    scope = Scope.BATCH

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        chosen = self.chosen(coefficient, batch, torch.zeros_like(batch.group))
        return replace(coefficient, keep=chosen, weight=chosen.double())


@dataclass(frozen=True)
class _TopShare(Credit):
    """What both keys share: c_t ← 0 below the (1 - share)-quantile of the key over all sampled tokens of the step."""

    share: float | Schedule
    needs = frozenset({"entropy"})
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        counts = select_tokens(coefficient, batch)
        key = apply_mask(self.key(coefficient, batch.require("entropy", str(self)).double()), counts)
        below = key < quantile(key, counts, 1.0 - _require_number(self.share, self))
        return scale_tokens(coefficient, torch.zeros_like(key), counts & below)

    @abstractmethod
    def key(self, coefficient: Coefficient, entropy: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """What the tokens are ordered by."""


@dataclass(frozen=True)
class keep_top_entropy(_TopShare):
    """c_t ← c_t where H_t is at least the (1 - share)-quantile of all sampled tokens of the optimiser step, else 0.

    The quantile interpolates linearly and the bound is inclusive, as in TRL 1.16. The reduction goes on counting the
    tokens left out. Tokens that were not sampled keep c.

    Source: arXiv 2506.01939; TRL's `top_entropy_quantile`, which is this share.
    """

    share: float | Schedule = 0.2

    def key(self, coefficient: Coefficient, entropy: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return entropy


@dataclass(frozen=True)
class keep_top_weighted_entropy(_TopShare):
    """c_t ← c_t where |c_t| · H_t is at least its (1 - share)-quantile over all sampled, kept tokens, else 0.

    As `keep_top_entropy` otherwise.

    Source: arXiv 2509.22115, known from others' notes, which leave ties and the denominator open.
    """

    def key(self, coefficient: Coefficient, entropy: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return coefficient.value.abs() * entropy
