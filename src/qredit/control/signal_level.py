"""How loud a q is: the effective reward of the median group, and the smallest q that is loud enough."""

import math
from collections.abc import Sequence

from qredit.stats.nearest_rank import lower_median

Q_GRID = tuple(step / 20 for step in range(21))


def signal_level(largest: Sequence[float], p_hat: Sequence[float], m: int, q: float) -> float:
    """log10 of the largest effective reward of a group, w_max/(w̄^q M^q): the scale of its gradient; median over groups.

    Adam divides by the scale of all groups together, whatever it is, until coefficients near its epsilon: of two q at
    which most groups are loud, neither is faster, and the smaller memorises fewer wrong answers. The median, for the
    mean follows the likeliest prompts: a few that are warm would leave the others unheard.

    Args:
        largest, p_hat: log10 of each group's largest w and of its mean w̄; -inf in groups without likelihood, which
            count as silent.
        m: rollouts per prompt.
        q: commitment, 0 … 1.

    Returns:
        -inf where half of the groups, or all, have no likelihood.
    """
    logs = [
        top - q * (mean + math.log10(m)) if top > -math.inf else top for top, mean in zip(largest, p_hat, strict=True)
    ]
    return lower_median(logs, -math.inf)


def smallest_sufficient_q(largest: Sequence[float], p_hat: Sequence[float], m: int, level: float) -> float:
    """The smallest q, on a grid of 0.05, whose loudness reaches a level (log10); 1 where none does.

    Args:
        largest: log10 of each group's largest w.
        p_hat: log10 of each group's mean w.
        m: rollouts per prompt.
        level: lowered to 1/(2M) where it is more: q = 1 reaches 1/M in every group.
    """
    level = min(level, -math.log10(2 * m))
    return next((q for q in Q_GRID if signal_level(largest, p_hat, m, q) >= level), 1.0)
