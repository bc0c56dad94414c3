"""Accuracy averaged over token budgets: the advantage of the thinking between two cuts."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Scope, Source
from qredit.stats.groups import Groups
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class budget_advantage(Source):
    """Thinking is cut at S budgets; c_{i,t} = A_s on the thinking between cut s-1 and cut s, s = 0 … S-1.

        J_s = Σ_{j≥s} P_j r̄_j                                 what thinking from here on can still earn
        V1_s = (Σ_{j<s} 2^j r̄_j / Σ_{j<s} 2^j) Σ_{j≥s} P_j       from the rollout's own earlier cuts; 0 at s = 0
        V2_s = mean over the group's rollouts of J_s            0 where a rollout is alone
        A_s = J_s - (s/S) V1_s - ((S-s)/S) V2_s

    `prior` is P, one number per budget, Σ = 1. The batch field `budget_reward@j` (B,) is r̄_j, the mean reward of
    answers sampled after cut j (a rollout that ended before repeats its last one), and `budget` (B, T) the number s of
    each token, -1 where there is none. A row with a NaN among its r̄ is left out and gets 0, and so
    is, of two rows that share a rationale, that of the gold answer.

    Raises QreditError for a prior that is empty, negative or does not sum to 1, and for a token whose s is not below S.
    """

    prior: tuple[float, ...]
    scope = Scope.GROUP

    def __post_init__(self) -> None:
        object.__setattr__(self, "prior", tuple(self.prior))
        if not self.prior or min(self.prior) < 0 or not math.isclose(sum(self.prior), 1.0, abs_tol=1e-6):
            raise QreditError(f"the prior over budgets must be numbers ≥ 0 that sum to 1, got {self.prior}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"budget", *(f"budget_reward@{number}" for number in range(len(self.prior)))})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        names = [f"budget_reward@{number}" for number in range(len(self.prior))]
        earned = torch.stack([batch.require(name, str(self)).double() for name in names], 1)
        scored = batch.drawn_rows & ~earned.isnan().any(1)
        advantage = self.advantages(torch.where(scored[:, None], earned, 0.0), batch, scored)
        budget = batch.require("budget", str(self)).long()
        inside = batch.sampled & (budget >= 0)
        if bool((budget[inside] >= len(self.prior)).any()):
            raise QreditError(f"{self} has {len(self.prior)} budgets; the field 'budget' holds {int(budget.max())}")
        value = advantage.gather(1, torch.where(inside, budget, 0))
        return Coefficient(torch.where(inside, value, 0.0), keep=scored[:, None])

    def advantages(self, earned: Float[Tensor, "B S"], batch: RolloutBatch, scored: Tensor) -> Float[Tensor, "B S"]:
        """A_s of each rollout.

        Args:
            earned: (B, S) reward at each of S cuts.
            batch: whole groups, with the fields that are needed.
            scored: (B,) rows that have a reward.
        """
        prior = earned.new_tensor(self.prior)
        number = torch.arange(len(prior), device=earned.device).to(earned)
        ahead = prior.flip(0).cumsum(0).flip(0)
        to_come = (prior * earned).flip(1).cumsum(1).flip(1)
        weight = 2.0**number
        before = (weight * earned).cumsum(1) - weight * earned
        own = before / (weight.cumsum(0) - weight).clamp(min=1) * ahead
        group = torch.stack([_mean_if_any(part, scored, batch.groups) for part in to_come.unbind(1)], 1)
        share = number / len(prior)
        return to_come - share * own - (1 - share) * group


def _mean_if_any(value: Float[Tensor, " B"], keep: Tensor, groups: Groups) -> Float[Tensor, " B"]:
    """The mean over the group; 0 where fewer than two rows count."""
    return torch.where(groups.count(keep) > 1, groups.mean(value, keep), 0.0)
