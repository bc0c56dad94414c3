"""Nearest-rank quantiles: always one of the values, so that -inf among them stays -inf and is no NaN."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def nearest_rank(values: Tensor | Sequence[float], level: float, empty: float = math.nan) -> float:
    """The ⌈level·n⌉-th smallest of n values.

    Args:
        values: one dimension; sorted here.
        level: from 0 to 1.
        empty: what stands for the quantile of no values.
    """
    ordered = torch.as_tensor(values, dtype=torch.float64).sort().values
    return float(ordered[max(math.ceil(level * len(ordered)) - 1, 0)]) if len(ordered) else empty


def lower_median(values: Tensor | Sequence[float], empty: float = math.nan) -> float:
    """The median; of an even number of values the lower one in the middle, and no mean of two."""
    return nearest_rank(values, 0.5, empty)
