"""Credit for forks alone: the tokens of each row that were drawn at the highest entropy."""

from dataclasses import dataclass, replace

from jaxtyping import Bool
from torch import Tensor

from qredit.batch import RolloutBatch
from qredit.chain import Coefficient, Credit
from qredit.masked import row_top
from qredit.schedule import check_range


@dataclass(frozen=True)
class keep_forks(Credit):
    """c_it ← 0 outside the ⌈share · n⌉ of row i's n sampled tokens with the highest entropy; the earlier among equals.

    The reduction's denominator stays. Source: arXiv 2511.17938 (SPINE), from others' notes, which do not state
    rounding, ties or the denominator.
    """

    share: float = 0.2
    needs = frozenset({"entropy"})

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        keep = forks(batch, self.share, str(self))
        return replace(coefficient, keep=keep if coefficient.keep is None else keep & coefficient.keep)


def forks(batch: RolloutBatch, share: float, wanted_by: str) -> Bool[Tensor, "B T"]:
    """The ⌈share · n⌉ of each row's n sampled tokens drawn at the highest entropy; the earlier among equals."""
    return row_top(batch.require("entropy", wanted_by).detach().double(), batch.sampled, share)
