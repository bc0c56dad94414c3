"""Probabilities that only their logarithm can hold, in few characters."""

import math


def power(log10: float) -> str:
    """A probability from its decimal logarithm: 0.12, 1e-14.3, 0."""
    if log10 == -math.inf:
        return "0"
    return f"{10**log10:.2g}" if log10 > -3 else f"1e{log10:.1f}"
