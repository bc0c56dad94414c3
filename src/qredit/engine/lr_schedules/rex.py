"""REX: a linear decay that stays high for longer and falls faster at the end."""

from collections.abc import Callable
from dataclasses import dataclass

from qredit.core.schedule import check_range
from qredit.engine.lr_schedules.protocol import LrSchedule


@dataclass(frozen=True)
class rex(LrSchedule):
    """(1 - u) / (1 - bend · u) of the largest rate, u the share of the steps that are over.

    With bend 0 that is the linear decay, near 1 it stays constant and then falls at once.

    Args:
        bend: 0 … 1, less than 1.

    Source: arXiv 2107.04197, which writes it as (1 - u) / (1/2 + (1 - u)/2): a bend of 1/2.
    """

    bend: float = 0.5

    def __post_init__(self) -> None:
        check_range("bend of rex", self.bend, 0.0, 1.0 - 1e-6)

    def make(self) -> Callable[[float], float]:
        return lambda over: (1.0 - over) / (1.0 - self.bend * over)
