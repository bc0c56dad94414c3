"""The reward of each rollout as a coefficient."""

from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Source


@dataclass(frozen=True)
class reward(Source):
    """c_i = r_i on every token of rollout i.

    A row whose reward is NaN was not scored: it is kept out of its group's statistics and gets coefficient 0.
    """

    needs = frozenset({"reward"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        value = batch.require("reward", str(self)).double()
        scored = ~value.isnan()
        return Coefficient(torch.where(scored, value, 0.0)[:, None], keep=scored[:, None])
