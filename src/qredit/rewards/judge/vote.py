"""Several critiques of one rollout made one: sets of wrong steps, voted on."""

from collections import Counter
from collections.abc import Sequence


def select_by_votes(critiques: Sequence[frozenset[int]], needed: float) -> frozenset[int]:
    """The steps that at least `needed` of the critiques call wrong; none where there is no critique."""
    votes = Counter(step for critique in critiques for step in critique)
    return frozenset(step for step, count in votes.items() if count >= needed)


def intersection(critiques: Sequence[frozenset[int]]) -> frozenset[int]:
    """The steps that every critique calls wrong."""
    return select_by_votes(critiques, len(critiques))


def majority(critiques: Sequence[frozenset[int]]) -> frozenset[int]:
    """The steps that at least half of the critiques call wrong."""
    return select_by_votes(critiques, len(critiques) / 2)


def union(critiques: Sequence[frozenset[int]]) -> frozenset[int]:
    """The steps that any critique calls wrong."""
    return select_by_votes(critiques, 1)
