"""The processes that train together, as far as a step asks of them."""

from typing import Any, Protocol

from torch import Tensor


class Collective(Protocol):
    """Every process calls the same methods in the same order.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all processes in one list, those of rank 0 first; any that can be pickled."""

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, entry by entry."""


class SingleProcess:
    """The collective of a single process."""

    rank, size = 0, 1

    def gather(self, values: list[Any]) -> list[Any]:
        return values

    def sum(self, values: Tensor) -> Tensor:
        return values
