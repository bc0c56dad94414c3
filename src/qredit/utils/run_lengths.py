"""How the values of a row of tokens are kept short: equal neighbours together, four significant digits."""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise


def run_length_encode(values: Sequence[float]) -> list[list[float | int | None]]:
    """Equal neighbours together: [value, how many].

    >>> run_length_encode([0.5, 0.5, -1.23456])
    [[0.5, 2], [-1.235, 1]]
    """
    return [[round_significant(value), sum(1 for _ in same)] for value, same in groupby(values)]


def list_stretches(marks: Sequence[bool]) -> list[list[int]]:
    """The stretches of True, as [start, end).

    >>> list_stretches([True, True, False, True])
    [[0, 2], [3, 4]]
    """
    edges = [place for place, (before, after) in enumerate(pairwise([False, *marks, False])) if before != after]
    return [[start, end] for start, end in zip(edges[::2], edges[1::2], strict=True)]


def round_significant(value: float, digits: int = 4) -> float | None:
    """So many significant digits; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
