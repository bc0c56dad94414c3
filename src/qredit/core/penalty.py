"""What a penalty is."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Requirements, State, Stateful


class Penalty(Requirements, ABC):
    """A loss term beside the policy's: Σ weight · term / denominator.

    A penalty is to its term what a credit chain is to log p: it says which number the quantity of each token is
    multiplied by. `weight` is a constant, evaluated together with the coefficient over the rows that `scope` names;
    `term` is differentiable and a function of its own row alone, so that rows may be run in chunks. A loss that is no
    sum over tokens, such as a squared mean, is stated by the weights that give its gradient.

    Attributes:
        counts_coefficients: the denominator depends on the coefficient, so `scope` must be BATCH.
    """

    counts_coefficients = False

    @property
    def name(self) -> str:
        """Under which the term is logged."""
        return type(self).__name__

    @abstractmethod
    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        """The constant that each token's term is multiplied by; 0 where the term does not count."""

    @abstractmethod
    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        """The quantity that is penalised, differentiable, at each token."""

    @abstractmethod
    def denominator(self, batch: RolloutBatch, coefficient: Float[Tensor, "B T"] | None = None) -> float:
        """What these rows contribute to the count that the sum is divided by."""

    def numerator(
        self, logp: Float[Tensor, "B T"], batch: RolloutBatch, weight: Float[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        """Σ weight · term over these rows; what stands where the weight is 0 has no part, whatever it is.

        Args:
            logp: (B, T) log-probability of each token in nats, with gradient.
            batch: whole groups, with the fields that are needed.
            weight: (B, T) of each token's term, a constant.
        """
        counted = weight != 0
        zero = torch.zeros((), dtype=logp.dtype, device=logp.device)
        return (
            torch.where(counted, weight, 0.0).to(logp.dtype) * torch.where(counted, self.term(logp, batch), zero)
        ).sum()


class TokenMeanPenalty(Penalty):
    """A penalty averaged over all sampled tokens of the optimiser step, whatever the policy term's reduction.

    A token that stands in two rows, before ŷ and before y*, counts once.
    """

    def denominator(self, batch: RolloutBatch, coefficient: Float[Tensor, "B T"] | None = None) -> float:
        return float(batch.drawn_once.sum())


class StatefulPenalty(Stateful, Penalty):
    """A penalty that carries state."""

    @abstractmethod
    def statistics(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> State:
        """What `update` needs of this batch, as numbers that are summed over batches."""

    @abstractmethod
    def weight_from(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch, state: State) -> Float[Tensor, "B T"]:
        """`weight`, given the state.

        Args:
            coefficient: (B, T) the chain's coefficient, float32.
            batch: whole groups, with the fields that are needed.
            state: as `init` or `update` made it.
        """

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return self.weight_from(coefficient, batch, self.init())
