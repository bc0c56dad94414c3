"""Rollouts of the last steps beside those of this one, with the credit that they once got: TP-GRPO's pool."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.objective import Credited, Objective
from qredit.core.reduce import Reduction
from qredit.core.schedule import check_range
from qredit.core.surrogate import clipped_ratio
from qredit.engine.replay.kept_credit import kept_credit
from qredit.engine.replay.protocol import Remembered, Replayed
from qredit.utils.errors import check_count


@dataclass(frozen=True)
class pool:
    """Every scored rollout of the last `steps` steps may be learned from again, as often as it is drawn.

        weight · -min(ρ_it · c_it, clip(ρ_it, 1 - epsilon_low, 1 + epsilon_high) · c_it),   ρ = current / sampler

    Behind each generation `draw` rollouts are drawn from the pool without replacement, each as likely as any other; all
    of them where there are fewer. They stay in the pool. c_it is the coefficient that the token got in its own group
    when the rollout was learned from for the first time, whatever the run's objective; the reduction is the run's.
    Rollouts that a filter took out of the denominator of their update are not in the pool.

    Args:
        draw: rollouts that are drawn.
        weight: of the loss.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.
        steps: optimiser steps that a rollout can be drawn for.
        dual_clip: bound of the ratio where c is negative, at least 1; None is none.

    Raises:
        QreditError: an argument out of its range.

    Source: arXiv 2507.23317 (TP-GRPO), known from others' notes. They tell that the pool holds the rollouts of the last
    50 steps. How many are drawn, how, with which weight and how ratios are bounded they do not tell: the draw is ours,
    and the numbers have no default.
    """

    draw: int
    weight: float
    epsilon_low: float
    epsilon_high: float
    steps: int = 50
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        for name in ("draw", "steps"):
            check_count(f"pool: {name}", getattr(self, name), 1)
        check_range("weight", self.weight, 1e-12, 1e12)
        self.make_objective(Objective(kept_credit()).reduction)  # refuses what its surrogate refuses

    @property
    def tolerance(self) -> int:
        """One less than `steps`: the next draw is a step away at least."""
        return self.steps - 1

    @property
    def groups(self) -> int:
        """None: nothing is compared."""
        return 0

    def keep(self, batch: RolloutBatch, credited: Credited) -> Bool[Tensor, " B"]:
        """Scored rows that counted in their update.

        Args:
            batch: that was learned from just now.
            credited: its coefficients.
        """
        scored = ~batch.require("reward", "pool").isnan()
        return scored if credited.weight is None else scored & (credited.weight != 0).any(1)

    def choose(self, kept: Remembered, seed: int) -> Replayed | None:
        """A random `draw` of those that are not too old.

        Args:
            kept: of earlier generations.
            seed: of the draw.
        """
        young = (kept.age <= self.steps).nonzero()[:, 0]
        if not len(young):
            return None
        drawn = torch.randperm(len(young), generator=torch.Generator().manual_seed(seed))[: self.draw]
        return Replayed(young[drawn].sort().values, stays=True)

    def factor(self, step: int) -> float:
        """`weight` all along.

        Args:
            step: number of the optimiser step of the run, from 1.
        """
        return self.weight

    def make_objective(self, reduction: Reduction) -> Objective:
        """The clipped loss of the coefficients that rows were kept with.

        Args:
            reduction: of the run's own objective.
        """
        surrogate = clipped_ratio(self.epsilon_low, self.epsilon_high, self.dual_clip)
        return Objective(kept_credit(), surrogate, reduction)
