"""Draws that every process makes alike: each a function of its seeds alone."""

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from qredit.data.shuffled import ShuffledPrompts
from qredit.utils.seed import derive_seed


class Pool:
    """A part of the prompts, visited epoch by epoch: none comes again before all others, as far as whole calls allow.

    Args:
        prompts: their indices, one at least.
        seed: of their order.
    """

    def __init__(self, prompts: Sequence[int], seed: int) -> None:
        self.prompts = tuple(prompts)
        self._order = ShuffledPrompts(len(self.prompts), seed)

    def next(self, n: int) -> list[int]:
        """The n that come next; some come more than once where there are fewer."""
        whole, rest = divmod(n, len(self.prompts))
        sizes = [*[len(self.prompts)] * whole, *([rest] if rest else [])]
        return [self.prompts[place] for size in sizes for place in self._order.next(size)]

    def state_dict(self) -> dict[str, Any]:
        return self._order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._order.load_state_dict(state)


def shuffle(items: Sequence[int], *seeds: int) -> list[int]:
    """The items in an order that is a function of the seeds."""
    order = list(items)
    Random(derive_seed(*seeds)).shuffle(order)
    return order


def count_share(before: int, n: int, share: float) -> int:
    """How many of n further prompts have a property, so that of all N so far exactly ⌊N·share⌋ do.

    Args:
        before: prompts that were given so far.
        n: further ones.
        share: of those with the property.
    """
    return _floor((before + n) * share) - _floor(before * share)


def draw_weighted(items: Sequence[int], weights: Sequence[float], count: int, seed: int) -> list[int]:
    """Different items, one after the other, each with probability ∝ its weight among those that are left.

    By exponential clocks: E_i ~ Exp(w_i), and the first to ring are taken.

    Args:
        items: to be drawn from.
        weights: of each, more than 0.
        count: how many are drawn; all, where there are fewer.
        seed: the draw is a function of it.
    """
    rng = Random(seed)
    clocks = [(rng.expovariate(1.0) / weight, item) for item, weight in zip(items, weights, strict=True)]
    return [item for _, item in sorted(clocks)[:count]]


def _floor(value: float) -> int:
    return math.floor(round(value, 9))  # 0.29 · 100 is 28.999…
