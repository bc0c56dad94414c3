"""Heavier tokens where a plan is made."""

import math
from dataclasses import dataclass

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.schedule import check_range
from qredit.credit.token_weight import scale_tokens, select_tokens


@dataclass(frozen=True)
class amplify_planning(Credit):
    """c_t ← c_t + strength · |c_t| on planning tokens: raised on wins, lowered less on losses.

    So a factor 1 + strength where c > 0 and 1 - strength where c < 0. Other tokens, and those not sampled, keep their
    coefficient. `planning` (B, T) marks the tokens inside a strategic n-gram; `qredit.rollouts.ngrams` makes it.

    Source: arXiv 2509.03646, known from others' notes; the default strength is that of third-party code.
    """

    strength: float = 0.2
    needs = frozenset({"planning"})

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        planned = batch.require("planning", str(self)) & select_tokens(coefficient, batch)
        return scale_tokens(coefficient, 1 + self.strength * coefficient.value.sign(), planned)
