"""Groups whose coefficients hardly differ, measured by what groups of earlier steps did."""

import math
from dataclasses import dataclass

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Scope, State, StatefulCredit
from qredit.core.schedule import check_range
from qredit.credit.filters import drop_rows, select_filterable
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class leave_out_narrow_groups(StatefulCredit):
    """Leave out the groups whose coefficients' standard deviation (n-1) is below share · m.

    m is the mean deviation of earlier steps' groups, those left out among them: from step `counted_from` on a plain
    mean over steps, after step `begin` an exponential moving average, m ← decay · m + (1 - decay) · (this step's mean).
    Before step `begin` nothing is left out. Steps count from 1; where the objective is evaluated once for a generation,
    a generation is a step.

    Args:
        share: of m.
        decay: of the moving average.
        counted_from, begin: steps.

    Source: arXiv 2506.18254, official code. Difference: no other group is sampled in the place of one left out.
    """

    share: float = 0.5
    decay: float = 0.99
    counted_from: int = 6
    begin: int = 11
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, math.inf)
        check_range("decay", self.decay, 0.0, 1.0)
        if not 1 <= self.counted_from < self.begin:
            raise QreditError(f"steps must be 1 ≤ counted_from < begin, got {self.counted_from} and {self.begin}")

    def init(self) -> State:
        return {"mean": 0.0, "counted": 0, "steps": 0}

    def statistics(self, coefficient: Coefficient, batch: RolloutBatch) -> State:
        value, rows = select_filterable(coefficient, batch, self)
        return {"sum": float(batch.groups.std(value, rows)[rows].sum()), "rows": float(rows.sum())}

    def update(self, state: State, statistics: State) -> State:
        step, counted, mean = state["steps"] + 1, state["counted"], state["mean"]
        if step >= self.counted_from and statistics["rows"]:
            now = statistics["sum"] / statistics["rows"]
            weight = 1 - self.decay if counted and step >= self.begin else 1 / (counted + 1)
            mean, counted = mean + weight * (now - mean), counted + 1
        return {"mean": mean, "counted": counted, "steps": step}

    def apply(self, coefficient: Coefficient, batch: RolloutBatch, state: State) -> Coefficient:
        if state["steps"] + 1 < self.begin:
            return coefficient
        value, rows = select_filterable(coefficient, batch, self)
        narrow = batch.groups.std(value, rows) < self.share * state["mean"]
        return drop_rows(coefficient, rows & narrow)
