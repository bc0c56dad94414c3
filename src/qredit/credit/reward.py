"""The reward of each rollout as a coefficient."""

import math
from dataclasses import dataclass, replace

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Source
from qredit.core.schedule import check_range


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


@dataclass(frozen=True)
class skip_unscored(Credit):
    """Rollouts whose reward is NaN are kept out of statistics and get 0: for sources that read no reward."""

    needs = frozenset({"reward"})

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        scored = ~batch.require("reward", str(self)).isnan()[:, None]
        return replace(coefficient, keep=scored if coefficient.keep is None else coefficient.keep & scored)


@dataclass(frozen=True)
class scale_by_outcome(Credit):
    """c ← right · c where the rollout's reward is above 0, wrong · c where it is not; c where it was not scored.

    Args:
        right: factor of rollouts that earned something.
        wrong: factor of the others.
    """

    right: float
    wrong: float
    needs = frozenset({"reward"})

    def __post_init__(self) -> None:
        check_range("right", self.right, -math.inf, math.inf)
        check_range("wrong", self.wrong, -math.inf, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        earned = batch.require("reward", str(self)).double()[:, None]
        factor = (
            torch.full_like(earned, self.wrong).masked_fill(earned > 0, self.right).masked_fill(earned.isnan(), 1.0)
        )
        return replace(coefficient, value=factor * coefficient.value)


@dataclass(frozen=True)
class punish_degenerate(Credit):
    """c_i ← reward where the rollout is `degenerate`, whatever it earned; c_i elsewhere.

    A degenerate rollout counts in its group's statistics, once, also where nothing scored it. Tokens of a gold answer
    keep their own number.

    Args:
        reward: in the place of what it earned.

    Source: arXiv 2501.11651 (T1), known from others' notes: -1 for repetition, overlong and garbled text.
    """

    reward: float = -1.0
    needs = frozenset({"degenerate"})

    def __post_init__(self) -> None:
        check_range("reward", self.reward, -math.inf, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        degenerate = batch.require("degenerate", str(self)).bool()
        return coefficient.set_rollouts(degenerate, self.reward, batch)
