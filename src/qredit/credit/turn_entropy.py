"""Credit of whole turns by how unsure the policy was in them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.token_weight import scale_tokens, select_tokens
from qredit.stats.groups import Groups
from qredit.stats.segment import Segments


@dataclass(frozen=True)
class scale_by_turn_entropy(Credit):
    """c_t ← a_k · c_t on the sampled tokens of turn k: heavier in turns of low entropy, lighter in turns of high.

        a_k = exp(-strength · h_k) / mean of exp(-strength · h),   h_k = (H_k - min H) / (max H - min H)

    H_k is the mean entropy (nats) of the turn's sampled tokens under the policy that sampled. min, max and mean are
    over all turns of the group's rollouts that count, so the mean of a over them is 1. a is 1 where max H - min H is
    below `least_range` or 0, and so in a group of one turn. Signs stay, but what was centred no longer sums to 0.

    Args:
        strength: λ. A turn of the highest entropy counts e^{-λ} times one of the lowest.
        least_range: nats.

    Source: arXiv 2605.00425v3 (AEM), from others' notes.
    """

    strength: float = 1.0
    least_range: float = 0.1
    needs = frozenset({"sampler_entropy", "turn"})
    scope = Scope.GROUP

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, math.inf)
        check_range("least_range", self.least_range, 0.0, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        turns = Segments.of(batch.require("turn", str(self)), select_tokens(coefficient, batch))
        entropy = turns.mean(batch.require("sampler_entropy", str(self)).double())
        factor = self._factor(entropy, turns, batch.groups)
        return scale_tokens(coefficient, turns.spread(factor), turns.inside)

    def _factor(self, entropy: Float[Tensor, "B S"], turns: Segments, groups: Groups) -> Float[Tensor, "B S"]:
        low = _group_min(entropy, turns, groups)
        width = -_group_min(-entropy, turns, groups) - low
        weight = torch.where(turns.exists, (-self.strength * (entropy - low) / width).exp(), 0.0)
        every = torch.ones_like(groups.index, dtype=torch.bool)
        number = groups.total(turns.exists.sum(1).double(), every).clamp(min=1)
        mean = (groups.total(weight.sum(1), every) / number)[:, None]
        return torch.where((width > 0) & (width >= self.least_range), weight / mean, 1.0)


def _group_min(value: Float[Tensor, "B S"], turns: Segments, groups: Groups) -> Float[Tensor, "B 1"]:
    """For each row, the least over all turns of its group; inf where there is none."""
    least = torch.where(turns.exists, value, torch.inf).amin(1)
    return groups.rows(groups.dense(least, torch.inf).amin(1, keepdim=True))[:, None]
