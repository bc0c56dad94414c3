"""How loud a q is: the mean effective reward of groups, and the smallest q that is loud enough."""

import math
from collections.abc import Sequence

GRID = tuple(step / 20 for step in range(21))


def loudness(largest: Sequence[float], p_hat: Sequence[float], m: int, q: float) -> float:
    """log10 of the mean over groups of the largest effective reward, w_max/(w̄^q M^q): the scale of a step's gradient.

    Adam divides by that scale, whatever it is, until coefficients near its epsilon: of two q that are both loud
    enough, neither is faster for its loudness, and the smaller memorises fewer wrong answers.

    Args:
        largest, p_hat: log10 of each group's largest w and of its mean w̄; -inf in groups without likelihood, which
            count with 0.

    Returns:
        -inf where no group has likelihood.
    """
    logs = [top - q * (mean + math.log10(m)) for top, mean in zip(largest, p_hat, strict=True) if top > -math.inf]
    if not logs:
        return -math.inf
    peak = max(logs)
    return peak + math.log10(math.fsum(10 ** (log - peak) for log in logs) / len(largest))


def quietest(largest: Sequence[float], p_hat: Sequence[float], m: int, level: float) -> float:
    """The smallest q, on a grid of 0.05, whose loudness reaches `level` (log10); 1 where none does."""
    return next((q for q in GRID if loudness(largest, p_hat, m, q) >= level), 1.0)
