"""Division by a statistic that may be 0."""

import torch
from torch import Tensor


def divide_or_zero(value: Tensor, unit: Tensor) -> Tensor:
    """value / unit, element by element; 0 where the unit is 0: numbers without a spread have no direction to scale up.

    Args:
        value: any shape.
        unit: broadcastable to it, such as a standard deviation.
    """
    return torch.where(unit == 0, torch.zeros_like(value), value / unit)
