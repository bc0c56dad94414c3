"""The theorems on J_Q as measurements: what is measured does not use the formula that it is compared with."""

from collections.abc import Callable, Mapping

from qredit.lab.theory import bias, coverage, escape, escort, noise, saturation
from qredit.lab.theory.finding import Finding

REGISTRY: Mapping[str, Callable[[], Finding]] = {
    "escape": escape.measure,
    "noise": noise.measure,
    "bias": bias.measure,
    "saturation": saturation.measure,
    "escort": escort.measure,
    "coverage": coverage.measure,
}
