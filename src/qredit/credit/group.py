"""Statistics of one number per rollout over its group, or over the whole batch."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.credit.token_weight import select_tokens
from qredit.stats import masked
from qredit.stats.division import divide_or_zero
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class center_by_group(Credit):
    """c_i ← c_i - mean over the group (own rollout included). Exactly 0 where the whole group is equal."""

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        centred = value - batch.groups.mean(value, keep)
        return coefficient.with_row(torch.where(batch.groups.is_constant(value, keep), 0.0, centred))


@dataclass(frozen=True)
class subtract_mean_of_others(Credit):
    """c_i ← c_i - mean over the other rollouts of the group, the leave-one-out baseline (arXiv 2402.14740).

    The baseline does not depend on rollout i, so it changes no expectation. A rollout alone in its group keeps c_i.
    Exactly 0 where two or more rollouts are all equal: no rounding residue is left for an optimiser to scale up.
    """

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        groups = batch.groups
        equal = groups.is_constant(value, keep) & (groups.count(keep) > 1)
        return coefficient.with_row(torch.where(equal, 0.0, value - groups.mean_of_others(value, keep)))


@dataclass(frozen=True)
class credit_lead(Credit):
    """c_i ← max(0, c_i - the largest c of the other rollouts of the group); a rollout alone gets 0.

    Only a rollout that is better than all others of its group keeps anything. With c_i = r_i this is the reward of the
    group's best less that of the best without rollout i, so the average of c_i ∇log p over a group of two or more has
    the mean ∇E[max r]/M (arXiv 2503.19595).
    """

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        groups = batch.groups
        dense = groups.dense(torch.where(keep, value, -torch.inf), -torch.inf)
        top = dense.topk(min(2, dense.shape[1]), dim=1).values
        best, second = groups.rows(top[:, :1]), groups.rows(top[:, -1:])
        ahead = keep & (groups.count(keep) > 1) & (value == best)
        return coefficient.with_row(torch.where(ahead, best - second, 0.0))


@dataclass(frozen=True)
class scale_by_group_std(Credit):
    """c_i ← c_i / (std over the group + epsilon), std with n-1.

    Exactly 0 stays 0: a group of equal rewards, already centred, has no direction to scale up. With epsilon = 0, a
    group of one or of equal values gets 0.
    """

    epsilon: float = 1e-4
    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        return coefficient.with_row(divide_or_zero(value, batch.groups.std(value, keep) + self.epsilon))


@dataclass(frozen=True)
class center_and_scale_by_group_mean(Credit):
    """c_i ← (c_i - mean) / (mean + epsilon) over the group; exactly 0 where the mean is 0 or the whole group is equal.

    With 0/1 rewards this is MaxRL's advantage (arXiv 2602.02710): the gradient of log p instead of p. Raises
    QreditError for a negative coefficient, whose mean would turn the sign.
    """

    epsilon: float = 1e-6
    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = _not_negative(coefficient, self)
        mean = batch.groups.mean(value, keep)
        nothing = (mean == 0) | batch.groups.is_constant(value, keep)
        return coefficient.with_row(torch.where(nothing, 0.0, (value - mean) / (mean + self.epsilon)))


@dataclass(frozen=True)
class divide_by_group_mean(Credit):
    """c_i ← c_i / mean over the group; exactly 0 where the mean is 0.

    With 0/1 rewards the average of c_i ∇log p over the group is the mean score of its right rollouts, the unbiased
    gradient of log p truncated at order M (arXiv 2602.02710). Raises QreditError for a negative coefficient.
    """

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = _not_negative(coefficient, self)
        mean = batch.groups.mean(value, keep)
        return coefficient.with_row(torch.where(mean == 0, 0.0, value / mean))


def _not_negative(coefficient: Coefficient, stage: Credit) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    value, keep = coefficient.per_rollout(stage)
    if bool((value[keep] < 0).any()):
        raise QreditError(f"{stage} needs rewards ≥ 0, got {float(value[keep].min()):g}")
    return value, keep


@dataclass(frozen=True)
class scale_by_batch_std(Credit):
    """c_i ← c_i / (std over all rollouts of the optimiser step + epsilon), std with n-1; 0 stays 0.

    With epsilon = 0, a step of one rollout or of equal values gets 0.

    The std is that of the coefficient it is given: after center_by_group of centred rewards, where TRL's
    scale_rewards="batch" takes the rewards' own.
    """

    epsilon: float = 1e-4
    scope = Scope.BATCH

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        kept = value[keep]
        equal = kept.numel() < 2 or bool((kept == kept[0]).all())  # the std of equal numbers can be a rounding residue
        std = torch.zeros((), dtype=value.dtype, device=value.device) if equal else kept.std()
        return coefficient.with_row(divide_or_zero(value, std + self.epsilon))


@dataclass(frozen=True)
class whiten_over_tokens(Credit):
    """c ← (c - mean) / √(variance + epsilon), over all sampled tokens of the optimiser step, variance with n-1.

    Every token counts once, so that a long rollout weighs more than a short one. Exactly 0 where all tokens hold one
    value, and on tokens that were not kept.
    """

    epsilon: float = 1e-8
    scope = Scope.BATCH

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        counted = select_tokens(coefficient, batch)
        value = coefficient.value.expand(batch.mask.shape)
        mean = masked.mean(value, counted)
        variance = masked.apply_mask(value - mean, counted).square().sum() / (counted.sum() - 1).clamp(min=1)
        white = (coefficient.value - mean) / (variance + self.epsilon).sqrt()
        held = value[counted]
        equal = held.numel() == 0 or bool((held == held[0]).all())
        return replace(coefficient, value=torch.zeros_like(white) if equal else white)
