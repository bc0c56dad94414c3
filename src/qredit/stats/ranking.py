"""How well a number tells two kinds of things apart."""

import math
from collections.abc import Sequence


def area_under_curve(values: Sequence[float], positive: Sequence[bool]) -> float:
    """P(value of a positive > value of a negative) + ½ P(equal), over all pairs: ½ where the number says nothing.

    The area under the curve of true against false positives (Mann and Whitney's statistic, divided by the pairs). NaN
    where one of the kinds is missing.

    Args:
        values: a number for each thing.
        positive: which kind each is of.
    """
    ranked = sorted(zip(values, positive, strict=True))
    ones, others = sum(positive), len(positive) - sum(positive)
    if not ones or not others:
        return math.nan
    above, place = 0.0, 0
    while place < len(ranked):
        end = place
        while end < len(ranked) and ranked[end][0] == ranked[place][0]:
            end += 1
        rank = (place + end + 1) / 2  # ranks count from 1; equal values share their mean
        above += rank * sum(kind for _, kind in ranked[place:end])
        place = end
    return (above - ones * (ones + 1) / 2) / (ones * others)
