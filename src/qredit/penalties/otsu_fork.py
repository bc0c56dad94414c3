"""Penalties on the forks that Otsu's threshold finds in the entropies of each row."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope
from qredit.core.field_names import KL_PREFIX
from qredit.core.penalty import TokenMeanPenalty
from qredit.credit.fork import apply_otsu_threshold, check_bins
from qredit.penalties.reference import TeacherPenalty
from qredit.stats.masked import apply_mask, row_quantile

_OF_A_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def _find_otsu_forks(batch: RolloutBatch, bins: int, wanted_by: str) -> Bool[Tensor, "B T"]:
    return apply_otsu_threshold(batch.require("entropy", wanted_by).detach().double(), batch.drawn_once, bins)


@dataclass(frozen=True)
class otsu_fork_entropy_band(TokenMeanPenalty):
    """Σ over forks of below · relu(low - H) + above · relu(H - high), over all sampled tokens of the step; H in nats.

        high = median of H over the row's forks,   low = max(0, high - 1.4826 · MAD)

    MAD is the median of |H - high| over the same forks. The bounds are constants. A row with one fork pays nothing.

    Args:
        above, below: weights of the hinges. Not stated in what is known of the method: no default.
        bins: of the histogram that the forks are found with, see `keep_otsu_forks`.

    Source: arXiv 2511.17938v2 (SPINE), the paper's text. Difference: medians of an even number lie in the middle.
    """

    above: float
    below: float
    bins: int = 100
    needs = frozenset({"entropy"})

    def __post_init__(self) -> None:
        check_bins(self.bins)

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return _find_otsu_forks(batch, self.bins, str(self)).double()

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        entropy = apply_mask(batch.require("entropy", str(self)), batch.drawn_once)
        low, high = entropy_band(entropy.detach(), _find_otsu_forks(batch, self.bins, str(self)))
        return self.below * (low - entropy).relu() + self.above * (entropy - high).relu()


def entropy_band(
    entropy: Float[Tensor, "B T"], chosen: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B 1"], Float[Tensor, "B 1"]]:
    """max(0, median - 1.4826 · MAD) and the median, of each row's chosen tokens."""
    high = row_quantile(entropy, chosen, 0.5)
    spread = row_quantile((entropy - high).abs(), chosen, 0.5)
    return (high - _OF_A_NORMAL * spread).clamp(min=0), high


@dataclass(frozen=True, repr=False)
class otsu_fork_kl_to_reference(TeacherPenalty):
    """strength · mean over the forks of the step of KL(policy ‖ reference) over the whole vocabulary.

    Args:
        bins: of the histogram that the forks are found with, see `keep_otsu_forks`.
        teacher: who stands for the reference, see `kl_to_reference`.

    Source: arXiv 2511.17938v2 (SPINE), the paper's text; the mean over forks from a third party's implementation of it.
    """

    bins: int = 100
    scope = Scope.BATCH

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"entropy", f"{KL_PREFIX}{self.teacher}"})

    def __post_init__(self) -> None:
        check_bins(self.bins)

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        forks = _find_otsu_forks(batch, self.bins, str(self)).double()
        return self.strength * forks * (batch.drawn_once.sum() / forks.sum().clamp(min=1))

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return batch.require(f"{KL_PREFIX}{self.teacher}", str(self))
