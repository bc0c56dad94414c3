"""Rollouts that are learned from by themselves, whatever their group earned."""

from dataclasses import dataclass

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.field_names import REINFORCED


@dataclass(frozen=True)
class reinforce_drawn(Credit):
    """c_i ← 1 on rollouts that a rule of drawing drew in another way (`reinforced`); c_i elsewhere.

    REINFORCE with the reward 1: they were chosen because they are good. They are no part of statistics before this
    stage, having no reward, and count in those after it.

    Source: arXiv 2510.08141, released code, which sets their advantages to 1.
    """

    needs = frozenset({REINFORCED})

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        drawn = batch.require(REINFORCED, str(self)).bool()
        return coefficient.set_rows(drawn, 1.0)
