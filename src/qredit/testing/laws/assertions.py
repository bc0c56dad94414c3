"""Comparisons that the laws are made of: each raises AssertionError and says by how much it failed."""

import torch
from torch import Tensor

FLOAT32 = 3e-6  # coefficients are float32; a few of its roundings


def assert_close(actual: Tensor, expected: Tensor, within: float = FLOAT32, what: str = "") -> None:
    """‖actual - expected‖ ≤ within · the larger of the two norms.

    Args:
        actual: what was computed.
        expected: what it is compared with.
        within: relative tolerance.
        what: named in the error.
    """
    actual, expected = actual.double(), expected.double()
    scale = max(float(expected.norm()), float(actual.norm()), 1e-12)
    error = float((actual - expected).norm()) / scale
    if not error <= within:
        raise AssertionError(f"{what or 'values'} differ by {error:.3g} of their norm, more than {within:g}")


def assert_each_close(actual: Tensor, expected: Tensor, within: float = FLOAT32, floor: float = 1e-37) -> None:
    """|actual - expected| ≤ within · |expected| + floor in every place; the floor is float32's smallest number.

    Args:
        actual: what was computed.
        expected: what it is compared with.
        within: relative tolerance.
        floor: absolute tolerance.
    """
    actual, expected = actual.double(), expected.double()
    error = (actual - expected).abs() - within * expected.abs() - floor
    if not bool((error <= 0).all()):
        place = int(torch.where(error.isnan(), torch.inf, error).argmax())
        got, wanted = actual.flatten()[place].item(), expected.flatten()[place].item()
        raise AssertionError(f"value {got:.9g} where {wanted:.9g} is right")


def assert_zero(value: Tensor, what: str) -> None:
    """Exactly 0 everywhere."""
    if value.numel() and not bool((value == 0).all()):
        raise AssertionError(f"{what}: {int((value != 0).sum())} values are not 0, the largest {value.abs().max():.3g}")


def assert_finite(value: Tensor, what: str) -> None:
    """No NaN and no infinity."""
    if not bool(value.isfinite().all()):
        raise AssertionError(f"{what}: {int((~value.isfinite()).sum())} values are not finite")
