"""What a rule is that chooses tokens of demonstrations."""

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float
from torch import Tensor


class TokenRule(ABC):
    """Chooses, before each optimiser step, the completion tokens that the step learns from; a frozen dataclass."""

    @abstractmethod
    def choose(self, cross_entropy: Float[Tensor, " N"], entropy: Float[Tensor, " N"]) -> Bool[Tensor, " N"]:
        """True for the tokens that count; at least one does.

        Args:
            cross_entropy: (N,) -log p of each completion token of the step, on all processes, in nats; N ≥ 1.
            entropy: (N,) of the model's distribution there, in nats.
        """
