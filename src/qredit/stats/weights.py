"""Statistics of the weights of a group, from their logarithms: log-mean and effective size."""

import torch
from jaxtyping import Float
from torch import Tensor


def log_mean_exp(log_w: Float[Tensor, "G M"], count: Float[Tensor, " G"] | None = None) -> Float[Tensor, " G"]:
    """log w̄, the logarithm of each group's mean weight; -inf where every weight is 0.

    Args:
        log_w: logarithms of weights; -inf is a weight of 0, and a place without a row.
        count: rows of each group, at least 1; M if not given.
    """
    return log_w.logsumexp(1) - _rows(log_w, count).log()


def effective_size(log_w: Float[Tensor, "G M"], count: Float[Tensor, " G"] | None = None) -> Float[Tensor, " G"]:
    """(Σw)²/Σw²: 1 if one row of the group carries all, `count` if all are alike; NaN where every weight is 0.

    Args:
        log_w, count: as in `log_mean_exp`.
    """
    rows = _rows(log_w, count)
    return (2 * log_mean_exp(log_w, rows) - log_mean_exp(2 * log_w, rows)).exp() * rows


def _rows(log_w: Tensor, count: Tensor | None) -> Tensor:
    return log_w.new_full(log_w.shape[:1], log_w.shape[1], dtype=torch.float64) if count is None else count
