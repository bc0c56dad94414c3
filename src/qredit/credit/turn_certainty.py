"""Credit of turns by how sure the policy was in them and in the next: EMPG's two terms.

H_k is the mean entropy (nats) of the turn's sampled tokens under the policy that sampled, and h_k its place between the
least and the largest of all turns of the optimiser step that count, 0 … 1; 0 where they are all equal.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Scope, Source
from qredit.core.schedule import check_range
from qredit.credit.turn import TurnCredit, has_no_turn_after, segment_turns, set_turn_values
from qredit.stats import masked
from qredit.stats.segment import Segments


def rank_entropy(
    turns: Segments, keep: Bool[Tensor, "B S"], batch: RolloutBatch, wanted_by: str
) -> Float[Tensor, "B S"]:
    """h of each turn: (H - min) / (max - min) over the turns that count; 0 where they are all equal.

    Args:
        turns: the turns of each row.
        keep: (B, S) turns that count.
        batch: with `sampler_entropy`.
        wanted_by: the stage, for errors.
    """
    return masked.rescale(turns.mean(batch.require("sampler_entropy", wanted_by).double()), keep)


@dataclass(frozen=True)
class scale_by_turn_certainty(TurnCredit):
    """c_k ← c_k · exp(-strength · h_k) / mean of exp(-strength · h) over all turns of the step.

    Heavier in turns of low entropy, so that the mean of the factor is 1. Exactly c where all turns have one entropy.

    Args:
        strength: k. A turn of the highest entropy counts e^{-k} times one of the lowest.
    """

    strength: float = 1.0
    needs = frozenset({"turn", "sampler_entropy"})
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, math.inf)

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        weight = (-self.strength * rank_entropy(turns, keep, batch, str(self))).exp()
        mean = masked.mean(weight, keep)
        return value * weight / torch.where(keep.any(), mean, 1.0), keep


@dataclass(frozen=True)
class next_turn_certainty(Source):
    """c_k = exp(-strength · h_{k+1}) on turn k, 0 on the last turn: what came next was clear.

    Rollouts whose reward is NaN are kept out.

    Args:
        strength: k'. Before a turn of the highest entropy it is e^{-k'}, before one of the lowest 1.
    """

    strength: float = 1.0
    needs = frozenset({"turn", "sampler_entropy", "reward"})
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, math.inf)

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        turns = segment_turns(batch, str(self))
        keep = turns.exists & ~batch.require("reward", str(self)).isnan()[:, None]
        certainty = (-self.strength * rank_entropy(turns, keep, batch, str(self))).exp()
        ahead = torch.where(has_no_turn_after(turns), 0.0, certainty.roll(-1, 1))
        return set_turn_values(Coefficient(ahead), turns, ahead, keep)
