"""Statistics over the rollouts of one prompt.

A group is the set of rows that share a number in `RolloutBatch.group`. Rows of a group need not be neighbours and
groups need not be of one size: values move to a dense (G, M) layout, where M is the largest group, and back.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.stats.weights import effective_size, log_mean_exp


@dataclass(frozen=True)
class Groups:
    """Where each of B rows stands among G groups.

    Attributes:
        index: (B,) number of the row's group, 0 … G-1, by ascending group id.
        slot: (B,) position of the row inside its group, in row order.
        size: (G,) rows in each group.
    """

    index: Int[Tensor, " B"]
    slot: Int[Tensor, " B"]
    size: Int[Tensor, " G"]

    @classmethod
    def of(cls, group: Int[Tensor, " B"]) -> "Groups":
        """The layout of arbitrary group ids; rows of one id form one group."""
        _, index, size = torch.unique(group, return_inverse=True, return_counts=True)
        order = torch.argsort(index, stable=True)
        start = torch.cumsum(size, 0) - size
        slot = torch.empty_like(index)
        slot[order] = torch.arange(len(index), device=index.device) - start[index[order]]
        return cls(index=index, slot=slot, size=size)

    def dense(self, row: Tensor, fill: float) -> Tensor:
        """(B,) → (G, M); places without a row hold `fill`."""
        width = int(self.size.max()) if len(self.size) else 0
        out = torch.full((len(self.size), width), fill, dtype=row.dtype, device=row.device)
        out[self.index, self.slot] = row
        return out

    def rows(self, dense: Tensor) -> Tensor:
        """(G, M) → (B,), or a statistic (G, 1) spread over the rows of its group."""
        wide = dense.expand(-1, int(self.size.max()) if len(self.size) else 0)
        return wide[self.index, self.slot]

    def count(self, keep: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
        """For each row, how many rows of its group are kept."""
        return self.total(keep.double(), keep)

    def total(self, value: Float[Tensor, " B"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
        """For each row, the sum of `value` over the kept rows of its group."""
        kept = torch.where(keep, value, torch.zeros_like(value))
        return self.rows(self.dense(kept, 0.0).sum(1, keepdim=True))

    def mean(self, value: Float[Tensor, " B"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
        """For each row, the mean of `value` over the kept rows of its group; 0 where none is kept."""
        return self.total(value, keep) / self.count(keep).clamp(min=1)

    def std(self, value: Float[Tensor, " B"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
        """For each row, the sample standard deviation (n-1) over the kept rows of its group.

        0 for fewer than two rows, and exactly 0 where all kept values are equal: no rounding residue is left to be
        divided by.
        """
        deviation = value - self.mean(value, keep)
        spread = self.total(deviation.square(), keep) / (self.count(keep) - 1).clamp(min=1)
        return torch.where(self.is_constant(value, keep), torch.zeros_like(spread), spread.sqrt())

    def is_constant(self, value: Float[Tensor, " B"], keep: Bool[Tensor, " B"]) -> Bool[Tensor, " B"]:
        """For each row, whether all kept rows of its group hold one and the same value (True when none is kept)."""
        low = self.dense(torch.where(keep, value, torch.full_like(value, torch.inf)), torch.inf)
        high = self.dense(torch.where(keep, value, torch.full_like(value, -torch.inf)), -torch.inf)
        return self.rows(high.amax(1, keepdim=True) <= low.amin(1, keepdim=True))

    def mean_of_others(self, value: Float[Tensor, " B"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
        """For each row, the mean of `value` over the *other* kept rows of its group; 0 where there is none."""
        kept = torch.where(keep, value, torch.zeros_like(value))
        dense, present = self.dense(kept, 0.0), self.dense(keep.to(value.dtype), 0.0)
        others = 1.0 - torch.eye(dense.shape[1], dtype=value.dtype, device=value.device)
        return self.rows((dense @ others) / (present @ others).clamp(min=1))

    def log_mean_exp(self, log_value: Float[Tensor, " B"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
        """For each row, log of the mean of exp(log_value) over the kept rows of its group; -inf where all are -inf."""
        dense = self.dense(_or_minus_inf(log_value, keep), -torch.inf)
        return self.rows(log_mean_exp(dense, self._kept(keep))[:, None])

    def effective_size(self, log_value: Float[Tensor, " B"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
        """For each row, (Σw)²/Σw² over the kept rows of its group, w = exp(log_value); NaN where all are -inf."""
        dense = self.dense(_or_minus_inf(log_value, keep), -torch.inf)
        return self.rows(effective_size(dense, self._kept(keep))[:, None])

    def log_mean_exp_of_others(self, log_value: Float[Tensor, " B"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
        """For each row, log of the mean of exp(log_value) over the *other* kept rows of its group.

        Summed over the others directly: the total less the own term would cancel when one row dominates. -inf where
        there are no others.
        """
        dense = self.dense(_or_minus_inf(log_value, keep), -torch.inf)
        width = dense.shape[1]
        own = torch.eye(width, dtype=torch.bool, device=dense.device)
        others = dense[:, None, :].expand(-1, width, -1).masked_fill(own, -torch.inf)
        count = (self.count(keep) - keep.double()).clamp(min=1)
        return self.rows(torch.logsumexp(others, 2)) - count.log()

    def _kept(self, keep: Bool[Tensor, " B"]) -> Float[Tensor, " G"]:
        """Kept rows of each group, 1 where there is none."""
        return self.dense(keep.double(), 0.0).sum(1).clamp(min=1)


def _or_minus_inf(log_value: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, log_value, torch.full_like(log_value, -torch.inf))
