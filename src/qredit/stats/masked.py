"""Statistics over the tokens that a mask marks: what many credit rules share.

Every function takes (B, T) values and a (B, T) mask (True = counts), ignores what stands outside the mask, NaN
included, and is finite where nothing counts.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def apply_mask(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], fill: float = 0.0) -> Float[Tensor, "B T"]:
    """The value where it counts, `fill` elsewhere.

    Args:
        value: (B, T) a number of each token.
        mask: (B, T) True where a token counts.
        fill: where nothing counts.
    """
    return torch.where(mask, value, torch.full_like(value, fill))


def mean(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """The mean over all tokens that count; 0 where there is none."""
    return apply_mask(value, mask).sum() / mask.sum().clamp(min=1)


def row_mean(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """The mean over each row's tokens that count; 0 where there is none."""
    return apply_mask(value, mask).sum(1) / mask.sum(1).clamp(min=1)


def covariance(
    first: Float[Tensor, "B T"], second: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """(first - mean) · (second - mean) of each token, means over all tokens that count: its part of the covariance.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) True where a token counts.
    """
    product = (first - mean(first, mask)) * (second - mean(second, mask))
    return apply_mask(product, mask)


def is_constant(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> bool:
    """Whether all tokens that count hold one and the same value; True where there is none."""
    return bool(apply_mask(value, mask, -torch.inf).max() <= apply_mask(value, mask, torch.inf).min())


def z_score(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """(value - mean) / std (n - 1) over all tokens that count; exactly 0 where they are all equal."""
    if is_constant(value, mask):
        return torch.zeros_like(value)
    centred = apply_mask(value - mean(value, mask), mask)
    return centred / (centred.square().sum() / (mask.sum() - 1)).sqrt()


def row_quantile(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], level: float) -> Float[Tensor, "B 1"]:
    """The quantile of each row's tokens that count, with linear interpolation; 0 where there is none.

    Args:
        value: (B, T) a number of each token.
        mask: (B, T) True where a token counts.
        level: 0 … 1.
    """
    ordered = apply_mask(value, mask, torch.inf).sort(1).values
    place = level * (mask.sum(1, keepdim=True) - 1).clamp(min=0).to(value.dtype)
    low = ordered.gather(1, place.floor().long())
    high = ordered.gather(1, place.ceil().long())
    found = torch.where(place == place.floor(), low, low + (high - low) * (place - place.floor()))
    return torch.where(mask.any(1, keepdim=True), found, 0.0)


def quantile(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], level: float) -> Float[Tensor, ""]:
    """The quantile of all tokens that count, with linear interpolation; 0 where there is none.

    Args:
        value: (B, T) a number of each token.
        mask: (B, T) True where a token counts.
        level: 0 … 1.
    """
    return row_quantile(value.flatten()[None], mask.flatten()[None], level)[0, 0]


def select_row_top(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], share: float) -> Bool[Tensor, "B T"]:
    """The ⌈share·n⌉ largest of each row's n tokens that count; the earlier token first among equals.

    Args:
        value: (B, T) a number of each token.
        mask: (B, T) True where a token counts.
        share: 0 … 1.
    """
    wanted = (share * mask.sum(1, keepdim=True).double() - 1e-9).ceil()
    return mask & (_rank(apply_mask(value, mask, -torch.inf)) < wanted)


def select_top(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], count: int) -> Bool[Tensor, "B T"]:
    """The `count` largest of all tokens that count; the earlier in row order first among equals.

    Args:
        value: (B, T) a number of each token.
        mask: (B, T) True where a token counts.
        count: how many.
    """
    ranks = _rank(apply_mask(value, mask, -torch.inf).flatten()[None])[0]
    return mask & (ranks < count).view_as(mask)


def _rank(value: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    order = value.argsort(dim=1, descending=True, stable=True)
    return torch.empty_like(value).scatter_(1, order, torch.arange(value.shape[1]).to(value).expand_as(value))


def hinge_band(
    value: Float[Tensor, "B T"], low: Float[Tensor, "#B #T"], high: Float[Tensor, "#B #T"]
) -> Float[Tensor, "B T"]:
    """How far the value lies outside [low, high]: relu(low - value) + relu(value - high).

    Args:
        value: (B, T) a number of each token.
        low: lower end, (B, T) or a shape that expands to it.
        high: upper end.
    """
    return (low - value).clamp(min=0) + (value - high).clamp(min=0)


def rescale(value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], least: float = 0.0) -> Float[Tensor, "B T"]:
    """(value - min) / (max - min) over all tokens that count; 0 where the range is no larger than `least`.

    Args:
        value: (B, T) a number of each token.
        mask: (B, T) True where a token counts.
        least: smallest range that is divided by.
    """
    low, high = apply_mask(value, mask, torch.inf).min(), apply_mask(value, mask, -torch.inf).max()
    width = high - low
    wide = bool(mask.any()) and bool(width > least)
    return apply_mask((value - low) / width, mask) if wide else torch.zeros_like(value)
