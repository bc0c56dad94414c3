"""How the values of a row of tokens are kept short: equal neighbours together, four significant digits."""

import math
from collections.abc import Sequence
from itertools import groupby


def run_length_encode(values: Sequence[float]) -> list[list[float | int | None]]:
    """Equal neighbours together: [value, how many].

    >>> run_length_encode([0.5, 0.5, -1.23456])
    [[0.5, 2], [-1.235, 1]]
    """
    return [[round_significant(value), sum(1 for _ in same)] for value, same in groupby(values)]


def round_significant(value: float, digits: int = 4) -> float | None:
    """So many significant digits; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
