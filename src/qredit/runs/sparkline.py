"""A row of numbers as a row of blocks, one character each, on a given scale."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

LEVELS = "▁▂▃▄▅▆▇█"
GAP = "·"


def draw_sparkline(values: Iterable[float | None], low: float, high: float) -> str:
    """One block a value: the lowest at `low` and below, the highest at `high` and above, nearest level between.

    A value that is missing or not finite leaves a dot. On a scale without extent every value is at its foot.

    >>> draw_sparkline([0.0, None, 0.5, 1.0], 0.0, 1.0)
    '▁·▅█'

    Args:
        values: None is a gap.
        low: value of the lowest block.
        high: value of the highest block.
    """
    return "".join(_block(value, low, high) for value in values)


def averaged(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values, each the mean of its share of the given ones, in order.

    >>> averaged([0.0, 1.0, 0.5, 0.5], width=2)
    [0.5, 0.5]
    """
    columns = min(width, len(values))
    bounds = [round(column * len(values) / columns) for column in range(columns + 1)] if columns else []
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]


def _block(value: float | None, low: float, high: float) -> str:
    if value is None or not math.isfinite(value):
        return GAP
    share = (value - low) / (high - low) if high > low else 0.0
    top = len(LEVELS) - 1
    return LEVELS[math.floor(min(max(share, 0.0), 1.0) * top + 0.5)]
