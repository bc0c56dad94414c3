"""The entropies of thinking and answering as part of the reward."""

from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.schedule import check_range
from qredit.stats.masked import row_mean


@dataclass(frozen=True)
class reward_by_phase_entropy(Credit):
    """c_i ← min(1, right - P_i) where c_i is above 0, `wrong` elsewhere.

        P_i = max(0, H_thinking - answer_weight · H_answer)

    H is the mean entropy (nats) under the policy that sampled over the rollout's sampled tokens before the closing
    string, and over those of the answer after it; 0 over no token. The closing itself is in neither. right - P has no
    lower bound: a right rollout that thinks at high entropy can fall below a wrong one.
    """

    right: float
    wrong: float
    answer_weight: float = 1.0
    needs = frozenset({"sampler_entropy"})

    def __post_init__(self) -> None:
        check_range("right", self.right, 0.0, 1.0)
        check_range("wrong", self.wrong, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        entropy = batch.require("sampler_entropy", str(self)).double()
        nothing = torch.zeros_like(batch.mask)
        thinking = batch.rationale & batch.sampled & ~(nothing if batch.close is None else batch.close)
        answering = batch.sampled & (nothing if batch.response is None else batch.response)
        excess = row_mean(entropy, thinking) - self.answer_weight * row_mean(entropy, answering)
        return coefficient.with_row(
            torch.where(value > 0, (self.right - excess.clamp(min=0.0)).clamp(max=1.0), self.wrong).to(value)
        )
