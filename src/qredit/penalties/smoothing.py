"""Entropy held within a band around its own history."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import State
from qredit.core.penalty import StatefulPenalty
from qredit.core.schedule import Schedule, check_range, linear
from qredit.penalties.entropy import EntropyPenalty
from qredit.stats.masked import apply_mask
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class entropy_smoothing(StatefulPenalty, EntropyPenalty):
    """strength · β · height · mean over sampled tokens of relu(low·H̄ - H) + relu(H - high·H̄): a band for H, in nats.

    H̄ is the mean over all earlier steps of their mean entropy, a constant; β = 1 + exp(-2·decay·progress), progress
    running from 0 to 1 over training, so that β = 1 + exp(-decay·s/s_mid) with s_mid half of the steps. The gradient
    flows through H: stated by slopes, the weight of H is ±strength·β·height outside the band and 0 inside, so the
    logged number lacks the terms in H̄. Zero in the first step, which has no history.

    Args:
        strength: of EPO's entropy terms, 0.001 in its experiments.
        low, high: the band, as multiples of H̄.
        height: of the hinge; decay: how fast β falls from 2. Not stated in what we read: no default.
        progress: of training; a schedule that is resolved with the others.

    Source: arXiv 2509.22576 (EPO), the paper's text. Difference: the released code keeps a reference for each turn and
    adds a constant outside the band, whose gradient is 0; means run over the step's tokens, not over trajectories'
    and turns' means.
    """

    strength: float
    low: float
    high: float
    height: float
    decay: float
    progress: float | Schedule = linear(0.0, 1.0)

    def __post_init__(self) -> None:
        check_range("progress", self.progress, 0.0, 1.0)
        if not 0 <= self.low <= self.high:
            raise QreditError(f"the band needs 0 ≤ low ≤ high, got {self.low} and {self.high}")

    @property
    def phase(self) -> float:
        """β at this moment of training."""
        if isinstance(self.progress, Schedule):
            raise QreditError(f"progress of {self} is a schedule; take objective.at(progress) first")
        return 1 + math.exp(-2 * self.decay * self.progress)

    def init(self) -> State:
        return {"sum": 0.0, "steps": 0}

    def statistics(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> State:
        return self.sum_entropy(batch)

    def update(self, state: State, statistics: State) -> State:
        if statistics["tokens"] == 0:
            return state
        mean = statistics["entropy"] / statistics["tokens"]
        return {"sum": state["sum"] + mean, "steps": state["steps"] + 1}

    def weight_from(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch, state: State) -> Float[Tensor, "B T"]:
        entropy = batch.require("entropy", str(self)).double()
        if not state["steps"]:
            return torch.zeros_like(entropy)
        usual = state["sum"] / state["steps"]
        slope = (entropy > self.high * usual).double() - (entropy < self.low * usual).double()
        return self.strength * self.phase * self.height * apply_mask(slope, batch.drawn_once)
