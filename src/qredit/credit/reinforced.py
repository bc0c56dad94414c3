"""Rollouts that are learned from by themselves, whatever their group earned."""

from dataclasses import dataclass, replace

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit


@dataclass(frozen=True)
class reinforce_drawn(Credit):
    """c_i ← 1 on rollouts that a rule of drawing drew in another way (`reinforced`); c_i elsewhere.

    REINFORCE with the reward 1: they were chosen because they are good. They are no part of statistics before this
    stage, having no reward, and count in those after it.

    Source: arXiv 2510.08141, released code, which sets their advantages to 1.
    """

    needs = frozenset({"reinforced"})

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        drawn = batch.require("reinforced", str(self)).bool()[:, None]
        return replace(
            coefficient,
            value=torch.where(drawn, 1.0, coefficient.value),
            keep=None if coefficient.keep is None else coefficient.keep | drawn,
        )
