"""Credits that work on a number per token: sums over what follows, and statistics over the tokens of a group.

The tokens that count are the sampled ones that the coefficient keeps; on all others the result is 0.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.credit.token_weight import select_tokens
from qredit.stats.groups import Groups
from qredit.stats.masked import apply_mask
from qredit.stats.segment import suffix_sum


def get_token_values(coefficient: Coefficient, batch: RolloutBatch) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """The value of each sampled token that counts, 0 elsewhere, and which tokens those are."""
    counts = select_tokens(coefficient, batch)
    return apply_mask(coefficient.value.expand(batch.mask.shape), counts), counts


def token_mean_of_others(
    value: Float[Tensor, "B T"], counts: Bool[Tensor, "B T"], groups: Groups
) -> Float[Tensor, " B"]:
    """For each row, Σ value / Σ tokens over the *other* rows of its group; 0 where they have no token.

    Args:
        value: (B, T) a number of each token.
        counts: (B, T) True where a token counts.
        groups: which rows belong together.
    """
    every = torch.ones(len(value), dtype=torch.bool, device=value.device)
    tokens = groups.mean_of_others(counts.sum(1).to(value.dtype), every)
    return groups.mean_of_others(value.sum(1), every) / torch.where(tokens > 0, tokens, 1.0)


@dataclass(frozen=True)
class at_last_token(Credit):
    """c_{i,t} ← c_i on the last sampled token of rollout i, 0 before it: where a reward arrives."""

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        left = suffix_sum(batch.sampled.double(), batch.sampled)
        return replace(coefficient, value=torch.where(batch.sampled & (left == 1), value[:, None], 0.0))


@dataclass(frozen=True)
class sum_to_come(Credit):
    """c_{i,t} ← Σ_{u≥t} c_{i,u}: the undiscounted return from each token on."""

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, counts = get_token_values(coefficient, batch)
        return replace(coefficient, value=apply_mask(suffix_sum(value, counts), counts))


@dataclass(frozen=True)
class subtract_token_mean_of_others(Credit):
    """c_{i,t} ← c_{i,t} - (Σ_{j≠i} Σ_u c_{j,u}) / (Σ_{j≠i} |o_j|), the mean over all tokens of the group's others.

    It does not depend on rollout i. A rollout alone in its group keeps its numbers.
    """

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, counts = get_token_values(coefficient, batch)
        baseline = token_mean_of_others(value, counts, batch.groups)[:, None]
        return replace(coefficient, value=apply_mask(value - baseline, counts))


@dataclass(frozen=True)
class standardize_tokens_by_group(Credit):
    """c_{i,t} ← (c_{i,t} - mean) / std, both over all tokens of all rollouts of the group at once; std with n - 1.

    Exactly 0 where all tokens of the group are equal, and in a group of one token.
    """

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, counts = get_token_values(coefficient, batch)
        groups, every = batch.groups, torch.ones(len(value), dtype=torch.bool, device=value.device)
        tokens = groups.total(counts.sum(1).to(value.dtype), every)
        mean = groups.total(value.sum(1), every) / tokens.clamp(min=1)
        centred = apply_mask(value - mean[:, None], counts)
        variance = groups.total(centred.square().sum(1), every) / (tokens - 1).clamp(min=1)
        equal = _group_max(groups, apply_mask(value, counts, -torch.inf)) <= -_group_max(
            groups, apply_mask(-value, counts, -torch.inf)
        )
        std = torch.where(equal | (variance == 0), torch.inf, variance.sqrt())
        return replace(coefficient, value=centred / std[:, None])


def _group_max(groups: Groups, value: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """For each row, the largest value of any token of its group."""
    return groups.rows(groups.dense(value.amax(1), -torch.inf).amax(1, keepdim=True))
