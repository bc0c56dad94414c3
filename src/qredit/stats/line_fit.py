"""A straight line through points, by least squares."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LineFit:
    """y ≈ intercept + slope·x, and R², the share of the variance of y that it explains."""

    slope: float
    intercept: float
    r2: float


def fit_line(x: Float[Tensor, " N"], y: Float[Tensor, " N"]) -> LineFit:
    """The least-squares line. Needs two different x; R² is 1 where y does not vary."""
    from_mean, height = x - x.mean(), y - y.mean()
    slope = float(from_mean @ height / (from_mean @ from_mean))
    spread, left = float(height @ height), float((height - slope * from_mean).square().sum())
    return LineFit(slope, float(y.mean()) - slope * float(x.mean()), 1.0 - left / spread if spread else 1.0)
