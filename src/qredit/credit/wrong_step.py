"""Steps that a judge marked: what a wrong or an unused one costs."""

from dataclasses import dataclass, replace

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.per_token import get_token_values
from qredit.stats.masked import apply_mask


@dataclass(frozen=True)
class charge_wrong_steps(Credit):
    """c_{i,t} ← c_{i,t} - cost · 1[t ∈ E_i], E_i the sampled tokens of `wrong_step`."""

    cost: float
    needs = frozenset({"wrong_step"})

    def __post_init__(self) -> None:
        check_range("cost", self.cost, 0.0, 1e6)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, counts = get_token_values(coefficient, batch)
        wrong = batch.require("wrong_step", str(self)) & counts
        return replace(coefficient, value=value - self.cost * wrong.double())


@dataclass(frozen=True)
class settle_unused_steps(Credit):
    """What the tokens of `unused_step` get, c_i the rollout's advantage and p̂ the group's share of right rollouts:

        right rollout: c_i - strength · p̂      wrong rollout: 0      all other tokens: c_i

    A step is unused if the rollout took it back (right rollouts) or the answer did not build on it (wrong ones). A
    rollout is right if its reward is above 0, so that rewards may be 0/1 or -1/1. In a group without a right rollout
    the charge is 0; where all are right and c_i = 0, -strength is left on unused steps.
    """

    strength: float
    needs = frozenset({"reward", "unused_step"})
    scope = Scope.GROUP

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, 1e6)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        advantage, _ = coefficient.per_rollout(self)
        reward = batch.require("reward", str(self)).double()
        right = reward > 0
        charged = torch.where(
            right, advantage - self.strength * batch.groups.mean(right.double(), ~reward.isnan()), 0.0
        )
        value, counts = get_token_values(coefficient, batch)
        unused = batch.require("unused_step", str(self)) & counts
        return replace(
            coefficient, value=torch.where(unused, apply_mask(charged[:, None].expand_as(value), counts), value)
        )
