"""A baseline that remembers earlier steps."""

from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, State, StatefulCredit
from qredit.core.schedule import check_range


@dataclass(frozen=True)
class subtract_running_mean(StatefulCredit):
    """c_i ← c_i - b, b the exponential moving average of the mean coefficient of earlier steps.

    REINFORCE's classical baseline. b moves by b ← decay·b + (1 - decay)·(mean of this step), starting at the first
    step's mean; in the first step itself b is 0. It never sees the rollouts it is subtracted from, so it changes no
    expectation.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        check_range("decay", self.decay, 0.0, 1.0)

    def init(self) -> State:
        return {"mean": 0.0, "steps": 0}

    def statistics(self, coefficient: Coefficient, batch: RolloutBatch) -> State:
        value, keep = coefficient.per_rollout(self)
        return {"sum": float(torch.where(keep, value, 0.0).sum()), "count": float(keep.sum())}

    def update(self, state: State, statistics: State) -> State:
        if statistics["count"] == 0:
            return state
        mean = statistics["sum"] / statistics["count"]
        moved = mean if state["steps"] == 0 else self.decay * state["mean"] + (1 - self.decay) * mean
        return {"mean": moved, "steps": state["steps"] + 1}

    def apply(self, coefficient: Coefficient, batch: RolloutBatch, state: State) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        return coefficient.with_row(value - state["mean"])
