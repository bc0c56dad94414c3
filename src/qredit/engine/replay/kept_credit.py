"""The coefficients that a row was first learned from with, as a source: for losses that take them once more."""

from dataclasses import dataclass

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Source

KEPT_CREDIT = "kept_credit"
"""(B, T), the coefficient of each token when its row was learned from for the first time."""


@dataclass(frozen=True)
class kept_credit(Source):
    """c_it = the coefficient that the token got among the rollouts of its own group, in the run's own objective.

    A rule whose objective begins with it has its rows kept with their coefficients.
    """

    needs = frozenset({KEPT_CREDIT})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        return Coefficient(batch.require(KEPT_CREDIT, str(self)).double())
