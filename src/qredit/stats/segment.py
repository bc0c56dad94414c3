"""Segments of a row: reasoning steps, macro actions, turns; sums, means, minima over each and over all that follow.

A (B, T) field gives each token the number of its segment. Numbers need not start at 0, nor leave none out: the segments
of a row stand in the order of their numbers. Values move to a dense (B, S) layout, S the most segments of any row (at
least 1), and back.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.stats.masked import apply_mask


@dataclass(frozen=True)
class Segments:
    """Where each of (B, T) tokens stands among its row's segments.

    Attributes:
        index: (B, T) number of the token's segment, 0 … S-1 in the order of the numbers given; -1 outside every one.
        size: (B, S) tokens of each segment; 0 where a row has fewer.
    """

    index: Int[Tensor, "B T"]
    size: Int[Tensor, "B S"]

    @classmethod
    def of(cls, number: Int[Tensor, "B T"], counts: Bool[Tensor, "B T"]) -> "Segments":
        """The segments of the tokens that count and whose number is not negative."""
        inside = counts & (number >= 0)
        beyond = torch.iinfo(torch.long).max
        ordered, order = number.long().masked_fill(~inside, beyond).sort(dim=1, stable=True)
        starts = torch.ones_like(ordered, dtype=torch.bool)
        starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        rank = torch.empty_like(ordered).scatter_(1, order, starts.cumsum(1) - 1)
        index = rank.masked_fill(~inside, -1)
        width = int(index.max()) + 1 if bool(inside.any()) else 1
        return cls(index, _sum_by_index(inside.long(), index, width))

    @property
    def inside(self) -> Bool[Tensor, "B T"]:
        """Tokens of some segment."""
        return self.index >= 0

    @property
    def exists(self) -> Bool[Tensor, "B S"]:
        """Segments that a row has."""
        return self.size > 0

    @property
    def last(self) -> Bool[Tensor, "B T"]:
        """The last token of each segment."""
        return self.inside & (self.spread(self._end()) == self._column())

    @property
    def rank(self) -> Int[Tensor, "B T"]:
        """Position of each token inside its segment, 0 for the first; 0 outside every one."""
        order = self.index.masked_fill(~self.inside, self.size.shape[1]).argsort(dim=1, stable=True)
        position = torch.empty_like(self.index).scatter_(1, order, self._column())
        return (position - self.spread(self.size.cumsum(1) - self.size)) * self.inside

    def total(self, value: Float[Tensor, "B T"]) -> Float[Tensor, "B S"]:
        """The sum over each segment."""
        return _sum_by_index(apply_mask(value, self.inside), self.index, self.size.shape[1])

    def mean(self, value: Float[Tensor, "B T"]) -> Float[Tensor, "B S"]:
        """The mean over each segment; 0 where there is none."""
        return self.total(value) / self.size.clamp(min=1)

    def spread(self, dense: Tensor) -> Tensor:
        """(B, S) → (B, T): to each token what its segment holds; 0 outside every segment."""
        return torch.where(self.inside, dense.gather(1, self._place()), torch.zeros_like(dense[:, :1]))

    def at_first(self, value: Tensor) -> Tensor:
        """(B, T) → (B, S): what stands on the first token of each segment; 0 where a row has fewer segments."""
        return self._at(self.start, value)

    def at_last(self, value: Tensor) -> Tensor:
        """(B, T) → (B, S): what stands on the last token of each segment; 0 where a row has fewer segments."""
        return self._at(self._end(), value)

    @property
    def start(self) -> Int[Tensor, "B S"]:
        """The column of each segment's first token; -1 where a row has fewer segments."""
        width = self.index.shape[1]
        first = torch.full_like(self.size, width)
        first = first.scatter_reduce(1, self._place(), self._column().masked_fill(~self.inside, width), "amin")
        return torch.where(self.exists, first, -1)

    def _at(self, column: Int[Tensor, "B S"], value: Tensor) -> Tensor:
        if value.shape[1] == 0:
            return torch.zeros_like(self.size, dtype=value.dtype)
        found = value.gather(1, column.clamp(min=0))
        return torch.where(self.exists, found, torch.zeros_like(found))

    def _end(self) -> Int[Tensor, "B S"]:
        """The column of each segment's last token; -1 where a row has fewer segments."""
        end = torch.full_like(self.size, -1)
        return end.scatter_reduce(1, self._place(), self._column().masked_fill(~self.inside, -1), "amax")

    def _column(self) -> Int[Tensor, "B T"]:
        return torch.arange(self.index.shape[1], device=self.index.device).expand_as(self.index)

    def _place(self) -> Int[Tensor, "B T"]:
        return self.index.clamp(min=0)


def suffix_sum(value: Float[Tensor, "B N"], counts: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """At each place the sum over this and all later ones that count."""
    return apply_mask(value, counts).flip(1).cumsum(1).flip(1)


def suffix_min(value: Float[Tensor, "B N"], counts: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """At each place the least over this and all later ones that count; 0 where none is left."""
    if value.shape[1] == 0:
        return value
    least = apply_mask(value, counts, torch.inf).flip(1).cummin(1).values.flip(1)
    return torch.where(least == torch.inf, 0.0, least)


def _sum_by_index(value: Tensor, index: Int[Tensor, "B T"], width: int) -> Tensor:
    """(B, T) → (B, width); what stands at -1 is left out."""
    total = torch.zeros(len(value), width + 1, dtype=value.dtype, device=value.device)
    return total.scatter_add_(1, torch.where(index < 0, width, index), value)[:, :width]
