"""Rollouts that are learned from by themselves, whatever their group earned."""

import math
from dataclasses import dataclass

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.field_names import REINFORCED
from qredit.core.schedule import check_range


@dataclass(frozen=True)
class reinforce_drawn(Credit):
    """c_i ← `weight` on rows that a rule of drawing put in (`reinforced`), 1 unless it is given; c_i elsewhere.

    REINFORCE with that reward: they were chosen because they are good, or are what a text says. They are no part of
    statistics before this stage, having no reward, and count in those after it.

    Source: arXiv 2510.08141, released code, which sets their advantages to 1.
    """

    weight: float = 1.0
    needs = frozenset({REINFORCED})

    def __post_init__(self) -> None:
        check_range("weight of reinforce_drawn", self.weight, 0.0, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        drawn = batch.require(REINFORCED, str(self)).bool()
        return coefficient.set_rollouts(drawn, self.weight, batch)
