"""Lighter tokens where an update would move the entropy most."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.token_weight import scale_tokens, select_tokens
from qredit.stats.masked import apply_mask, is_constant, rescale

_LEAST_PROBABILITY = 1e-8


def entropy_change(
    advantage: Float[Tensor, "B T"],
    logp: Float[Tensor, "B T"],
    sampler_logp: Float[Tensor, "B T"],
    entropy: Float[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """Ω = (A / p_old) · p (1 - p) (log p + H), with p and p_old kept 1e-8 away from 0 and p from 1.

    The estimate of how far a token's update moves the entropy, as STEER's released code computes it. A number that is
    not finite becomes 0. At p = p_old it is A (1 - p) (log p + H). The first-order change of a softmax's entropy,
    -step · A p (1 - p) (log p + H), has one factor p more: here a rare token weighs heavier than a derivation gives.

    Args:
        advantage: (B, T) A.
        logp: (B, T) log p, nats.
        sampler_logp: (B, T) log p_old, nats.
        entropy: (B, T) H, nats.
    """
    p = logp.double().exp().clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    p_old = sampler_logp.double().exp().clamp(min=_LEAST_PROBABILITY)
    return (advantage / p_old * p * (1 - p) * (p.log() + entropy)).nan_to_num(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _EntropyChange(Credit):
    """What both maps share: the size of the estimated change, over all sampled tokens of the optimiser step."""

    needs = frozenset({"logp", "entropy"})
    scope = Scope.BATCH

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        counts = select_tokens(coefficient, batch)
        logp, entropy = (batch.require(name, str(self)) for name in ("logp", "entropy"))
        old = logp if batch.sampler_logp is None else batch.sampler_logp
        change = entropy_change(coefficient.spread(batch), logp, old, entropy)
        return scale_tokens(coefficient, self.factor(change.abs(), counts), counts)

    @abstractmethod
    def factor(self, size: Float[Tensor, "B T"], counts: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The weight of each token, from |Ω|."""


@dataclass(frozen=True)
class scale_by_entropy_change(_EntropyChange):
    """c_t ← least^(|Ω_t| / max(max |Ω|, floor)) · c_t: weight 1 where entropy stays, `least` where it moves most.

    Ω is `entropy_change`, its maximum that of all sampled tokens of the optimiser step. Tokens that were not sampled
    keep their coefficient. The floor keeps steps that hardly move the entropy from being stretched to the full range.

    Source: arXiv 2510.10150, official code.
    """

    least: float = 0.8
    floor: float = 0.02

    def __post_init__(self) -> None:
        check_range("least", self.least, 1e-12, 1.0)
        check_range("floor", self.floor, 1e-12, math.inf)

    def factor(self, size: Float[Tensor, "B T"], counts: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        largest = apply_mask(size, counts).max().clamp(min=self.floor)
        return torch.pow(self.least, size / largest)


@dataclass(frozen=True)
class scale_by_entropy_change_linearly(_EntropyChange):
    """c_t ← λ_t c_t, λ falling in a straight line from `most` at the step's smallest |Ω| to `least` at its largest.

    The mean of the two where all |Ω| are equal. As `scale_by_entropy_change` otherwise.

    Source: arXiv 2510.10150, official code.
    """

    least: float = 0.8
    most: float = 1.2

    def __post_init__(self) -> None:
        check_range("least", self.least, 0.0, math.inf)
        check_range("most", self.most, self.least, math.inf)

    def factor(self, size: Float[Tensor, "B T"], counts: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        if is_constant(size, counts):
            return torch.full_like(size, (self.least + self.most) / 2)
        return self.most - (self.most - self.least) * rescale(size, counts)
