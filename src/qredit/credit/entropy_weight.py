"""Heavier tokens where the policy was unsure."""

import math
from dataclasses import dataclass

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.token_weight import scale_tokens, select_tokens
from qredit.stats.masked import z_score


@dataclass(frozen=True)
class scale_by_entropy_score(Credit):
    """c_t ← (1 + strength · z_t) · c_t, z_t = (H_t - mean) / std over all sampled tokens of the step, std with n - 1.

    z is 0 where all entropies are equal. The sign of c turns where z < -1/strength. Tokens that were not sampled keep
    their coefficient.

    Source: arXiv 2510.14545, and its code for the std.
    """

    strength: float = 0.2
    needs = frozenset({"entropy"})
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        counts = select_tokens(coefficient, batch)
        score = z_score(batch.require("entropy", str(self)).double(), counts)
        return scale_tokens(coefficient, 1 + self.strength * score, counts)
