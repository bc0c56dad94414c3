"""What a penalty is."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from qredit.batch import RolloutBatch


class Penalty(ABC):
    """A loss term beside the policy's: (log-probs, batch, coefficient) → numerator; a denominator from the batch."""

    @property
    def name(self) -> str:
        """Under which the term is logged."""
        return type(self).__name__

    @property
    def needs(self) -> frozenset[str]:
        """Names of the batch fields read."""
        return frozenset()

    @abstractmethod
    def numerator(
        self, logp: Float[Tensor, "B T"], batch: RolloutBatch, coefficient: Float[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        """The sum that these rows contribute, differentiable."""

    @abstractmethod
    def denominator(self, batch: RolloutBatch) -> float:
        """What these rows contribute to the count that the sum is divided by."""
