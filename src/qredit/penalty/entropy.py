"""The entropy bonus."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from qredit.batch import RolloutBatch
from qredit.penalty.base import Penalty


@dataclass(frozen=True)
class entropy_bonus(Penalty):
    """-strength · mean over sampled tokens of H(p(· | prefix)), H in nats: rewards an open next-token distribution.

    Mean over all sampled tokens of the optimiser step, whatever reduction the policy term uses, as in TRL.
    """

    strength: float
    needs = frozenset({"entropy"})

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return -self.strength * batch.sampled.double()

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return batch.require("entropy", str(self))

    def denominator(self, batch: RolloutBatch, coefficient: Float[Tensor, "B T"] | None = None) -> float:
        return float(batch.sampled.sum())
