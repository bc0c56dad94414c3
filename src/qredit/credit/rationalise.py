"""Rollouts drawn behind the gold answer as a second attempt at prompts that were not solved without it."""

from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope


@dataclass(frozen=True)
class rationalise_failures(Credit):
    """c_i ← 0 on rollouts drawn behind the hint, where a plain rollout of their group has c_i > 0.

    The others stay as they are, hinted ones counted as if the plain prompt had drawn them: a bias, on purpose.

    Source: the rule of STaR (arXiv 2203.14465), known at second hand.
    """

    needs = frozenset({"proposal"})
    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        hinted = batch.require("proposal", str(self))
        solved = batch.groups.total(((value > 0) & ~hinted).double(), keep) > 0
        return coefficient.with_row(torch.where(hinted & solved, 0.0, value))
