"""Theorems as measurements: what is measured does not use the formula that it is compared with."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qredit.lab.finding import Finding


def _measure(name: str) -> "Finding":
    found: Finding = importlib.import_module(f"{__name__}.{name}").measure()
    return found


# Each theorem's module is imported when it is measured: their names alone need no torch.
REGISTRY: Mapping[str, Callable[[], "Finding"]] = {
    name: partial(_measure, name)
    for name in ("escape", "optimum", "noise", "bias", "saturation", "escort", "coverage", "cliff", "best_of_n")
}
