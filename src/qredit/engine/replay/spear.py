"""Good rollouts once more, compared with what is usual by now: SPEAR's self-imitation."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import on_span
from qredit.core.objective import Credited, Objective
from qredit.core.reduce import Reduction
from qredit.core.schedule import check_range
from qredit.core.surrogate import clipped_ratio
from qredit.credit.covariance import drop_covariance_band
from qredit.credit.reward import reward
from qredit.engine.replay.protocol import Remembered, Replayed
from qredit.utils.errors import check_count


@dataclass(frozen=True)
class spear:
    """Rollouts of a positive advantage are kept, and learned from again with a new one when there are enough.

        Ã_i = R_i - b,   b the median of the mean rewards of the last `baseline` groups
        loss · weight · (1 - cos(π s / steps)) / 2 in step s, and · weight after `steps`

    Where more than 1.5 · buffer of the kept rollouts have R_i > b, those of Ã_i ≥ 0 are usable. A random 2^k of them,
    `buffer` at most, are learned from, and everything that was kept is dropped. The loss is Clip-Cov's (`clip_cov`),
    with the run's reduction and with ratios to the policy that sampled.

    Args:
        buffer: rollouts that are learned from again, at most.
        baseline: groups whose mean rewards b is the median of.
        steps: optimiser steps until the loss counts in full; 0 counts it in full at once.
        low, high: covariances between which tokens are left out, see `drop_covariance_band`.
        share: of the tokens, that are left out there.
        tolerance: optimiser steps that a rollout is kept.
        weight: of the loss.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.
        scale: divide Ã by the median of the standard deviations of those groups' rewards, plus 1e-6.

    Raises:
        QreditError: an argument out of its range.

    Source: arXiv 2509.22601 and its official code. Mathematics there: buffer and baseline 32, 300 steps, 1 to 40.
    ALFWorld: 2048 and 10240, 100 steps, 2 to 60. Differences: a step is one of the optimiser, there a generation. The
    last `baseline` groups are counted one by one, there by generations. Its other mode, the old advantage times a
    number, is not here.
    """

    buffer: int
    baseline: int
    steps: int
    low: float
    high: float
    share: float = 0.02
    tolerance: int = 5
    weight: float = 1.0
    epsilon_low: float = 0.2
    epsilon_high: float = 0.28
    scale: bool = False

    def __post_init__(self) -> None:
        for name in ("buffer", "baseline", "tolerance"):
            check_count(f"spear: {name}", getattr(self, name), 1)
        check_count("spear: steps", self.steps, 0)
        check_range("weight", self.weight, 1e-12, 1e12)
        self.make_objective(Objective(reward()).reduction)  # refuses what its stages refuse

    @property
    def groups(self) -> int:
        """As many as the baseline is the median of."""
        return self.baseline

    def keep(self, batch: RolloutBatch, credited: Credited) -> Bool[Tensor, " B"]:
        """Rows whose coefficients add up to more than 0.

        Args:
            batch: that was learned from just now.
            credited: its coefficients.
        """
        return torch.where(batch.sampled, credited.value, 0.0).double().sum(1) > 0

    def choose(self, kept: Remembered, seed: int) -> Replayed | None:
        """A random 2^k of the usable ones, where there are enough.

        Args:
            kept: of earlier generations.
            seed: of the draw.
        """
        if not len(kept.group_mean):
            return None
        baseline = kept.group_mean.quantile(0.5)
        advantage = kept.reward - baseline
        if int((advantage > 0).sum()) <= 1.5 * self.buffer:
            return None
        usable = (advantage >= 0).nonzero()[:, 0]
        count = min(1 << (len(usable).bit_length() - 1), self.buffer)
        drawn = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed))[:count]
        places = usable[drawn].sort().values
        chosen = advantage[places]
        if self.scale:
            chosen = chosen / (kept.group_std.quantile(0.5) + 1e-6)
        return Replayed(places, chosen, float(baseline))

    def factor(self, step: int) -> float:
        """From near 0 to `weight` along half a cosine.

        Args:
            step: number of the optimiser step of the run, from 1.
        """
        if step >= self.steps:
            return self.weight
        return self.weight * (1 - math.cos(math.pi * step / self.steps)) / 2

    def make_objective(self, reduction: Reduction) -> Objective:
        """Clip-Cov's loss of a given advantage.

        Args:
            reduction: of the run's own objective.
        """
        clip = self.epsilon_low, self.epsilon_high
        advantage = reward() | drop_covariance_band(self.share, self.low, self.high, *clip)
        return Objective(on_span("sampled", advantage), clipped_ratio(*clip), reduction)
