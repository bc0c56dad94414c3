"""Penalties on forks, the sampled tokens of highest entropy in each row."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.penalty import Penalty
from qredit.core.schedule import check_range
from qredit.credit.fork import find_forks
from qredit.penalties.reference import kl_to_reference
from qredit.stats.masked import apply_mask, row_quantile, select_row_top


class _ForkPenalty(Penalty):
    """A penalty averaged over the forks of the optimiser step."""

    share: float

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0)

    def denominator(self, batch: RolloutBatch, coefficient: Float[Tensor, "B T"] | None = None) -> float:
        anything = torch.zeros(batch.mask.shape, device=batch.mask.device)  # how many there are is known before H is
        return float(select_row_top(anything, batch.drawn_once, self.share).sum())


@dataclass(frozen=True)
class fork_entropy_band(_ForkPenalty):
    """Mean over forks of below · relu(q10 - H) + above · relu(H - q50), H in nats.

    q10 and q50 are the 10 % and 50 % quantiles of H over the forks of the same row, constants: forks are drawn to the
    lower half of their own range, and none falls far below it. A row with one fork pays nothing.

    Args:
        above, below: weights of the hinges. Not stated in what is known of the method: no default.
        share: of a row's sampled tokens that are forks.

    Source: arXiv 2511.17938v1 (SPINE), from others' notes. Difference: quantiles without gradient, forks rounded up and
    their mean over the step are our reading.
    """

    above: float
    below: float
    share: float = 0.2
    needs = frozenset({"entropy"})

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return find_forks(batch, self.share, str(self)).double()

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        entropy = apply_mask(batch.require("entropy", str(self)), batch.drawn_once)
        chosen = find_forks(batch, self.share, str(self))
        low, high = (row_quantile(entropy.detach(), chosen, level) for level in (0.1, 0.5))
        return self.below * (low - entropy).relu() + self.above * (entropy - high).relu()


@dataclass(frozen=True, repr=False)
class fork_kl_to_reference(_ForkPenalty, kl_to_reference):
    """strength · mean over forks of k3 = exp(g) - g - 1, g = log p_reference - log p_policy of the token.

    `kl_to_reference` on the ⌈share · n⌉ sampled tokens of highest entropy of each row.

    Source: arXiv 2511.17938v1 (SPINE), from others' notes. Difference: the estimator is not stated there; k3 is ours.
    """

    share: float = 0.2

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"entropy"}

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return self.strength * find_forks(batch, self.share, str(self)).double()
