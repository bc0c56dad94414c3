"""Credit for forks alone: the tokens of each row that were drawn at the highest entropy."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.schedule import check_range
from qredit.stats.masked import apply_mask, select_row_top
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class keep_forks(Credit):
    """c_it ← 0 outside the ⌈share · n⌉ of row i's n sampled tokens with the highest entropy; the earlier among equals.

    The reduction's denominator stays. Source: arXiv 2511.17938v1 (SPINE), from others' notes, which do not state
    rounding, ties or the denominator.
    """

    share: float = 0.2
    needs = frozenset({"entropy"})

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        keep = find_forks(batch, self.share, str(self))
        return replace(coefficient, keep=keep if coefficient.keep is None else keep & coefficient.keep)


def find_forks(batch: RolloutBatch, share: float, wanted_by: str) -> Bool[Tensor, "B T"]:
    """The ⌈share · n⌉ of each row's n sampled tokens drawn at the highest entropy; the earlier among equals.

    Args:
        batch: whole groups, with the fields that are needed.
        share: of a row's sampled tokens, 0 … 1.
        wanted_by: what errors say needs the field.
    """
    return select_row_top(batch.require("entropy", wanted_by).detach().double(), batch.sampled, share)


@dataclass(frozen=True)
class keep_otsu_forks(Credit):
    """c_it ← 0 outside the sampled tokens of row i whose entropy is at or above Otsu's threshold of that row.

    See `apply_otsu_threshold`. How many forks there are follows from the row's entropies. The reduction's denominator
    stays.

    Args:
        bins: of the histogram of the row's entropies.

    Source: arXiv 2511.17938v2 (SPINE), the paper's text.
    """

    bins: int = 100
    needs = frozenset({"entropy"})

    def __post_init__(self) -> None:
        check_bins(self.bins)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        entropy = batch.require("entropy", str(self)).detach().double()
        keep = apply_otsu_threshold(entropy, batch.sampled, self.bins)
        return replace(coefficient, keep=keep if coefficient.keep is None else keep & coefficient.keep)


def check_bins(bins: int) -> None:
    """Refuse a histogram that cannot be split.

    Raises:
        QreditError: fewer than 2 bins.
    """
    if bins < 2:
        raise QreditError(f"bins must be at least 2, got {bins}")


def apply_otsu_threshold(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], bins: int) -> Bool[Tensor, "B T"]:
    """The values of each row at or above Otsu's threshold; all of a row that holds one value only.

    The row's range is cut into `bins` equal bins, counted at their centres. The threshold is the centre of the bin
    which, as the last of the lower class, makes the variance between the two classes largest; the first of several.
    A value in that very bin is chosen if it lies above its centre.

    Args:
        value: (B, T) a number of each token.
        mask: (B, T) True where a token counts.
        bins: of the histogram.
    """
    low = apply_mask(value, mask, torch.inf).amin(1, keepdim=True)
    width = apply_mask(value, mask, -torch.inf).amax(1, keepdim=True) - low
    varied = mask & (width > 0)
    place = torch.where(varied, (value - low) / torch.where(width > 0, width, 1.0), 0.0)  # in [0, 1]
    bin_of = (place * bins).long().clamp(max=bins - 1)
    count = torch.zeros(len(value), bins, dtype=torch.float64, device=value.device)
    count.scatter_add_(1, bin_of, varied.double())
    centre = (torch.arange(bins, device=value.device).double() + 0.5) / bins
    below, moment = count.cumsum(1), (count * centre).cumsum(1)
    above = below[:, -1:] - below
    gap = moment / below.clamp(min=1) - (moment[:, -1:] - moment) / above.clamp(min=1)
    between = torch.where((below > 0) & (above > 0), below * above * gap.square(), -1.0)
    threshold = centre[between.argmax(1)][:, None]
    return torch.where(width > 0, varied & (place >= threshold), mask)
