"""The entropy bonus."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from qredit.batch import RolloutBatch
from qredit.penalty.base import Penalty


@dataclass(frozen=True)
class entropy_bonus(Penalty):
    """-weight · mean over sampled tokens of H(p(· | prefix)), H in nats: rewards an open next-token distribution.

    Mean over all sampled tokens of the optimiser step, whatever reduction the policy term uses, as in TRL.
    """

    weight: float
    needs = frozenset({"entropy"})

    def numerator(
        self, logp: Float[Tensor, "B T"], batch: RolloutBatch, coefficient: Float[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        return -self.weight * (batch.require("entropy", str(self)) * batch.sampled).sum()

    def denominator(self, batch: RolloutBatch) -> float:
        return float(batch.sampled.sum())
