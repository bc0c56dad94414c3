"""From coefficient and log-probabilities to a per-token loss whose gradient is minus coefficient · ∇ log p.

A token that was drawn under other parameters than the current ones carries an importance ratio
current/sampler = exp(logp - sampler_logp). Where `batch.sampler_logp` is None, and on tokens that were not sampled
(the gold answer), the ratio is 1. So it is in rows whose coefficient holds the ratio already: an objective hides the
sampler's log-probabilities of such rows from its surrogate (`Coefficient.holds_ratio`).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.schedule import check_range
from qredit.stats.segment import Segments


class Surrogate(ABC):
    """(coefficient, log-probabilities with gradient, batch) → per-token loss.

    `needs` names batch fields that it reads beside spans and log-probabilities.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def __call__(
        self, coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Float[Tensor, "B T"]:
        """The loss at each position; where the coefficient is 0, so are loss and gradient, whatever log p is."""


@dataclass(frozen=True)
class score_function(Surrogate):
    """-c · min(sg[ratio], ratio_max) · log p: a weighted log-likelihood.

    On the policy that sampled, this is the plain score-function estimator. Off it, sampled tokens are weighted by the
    truncated importance ratio, held constant; answer tokens, which were not sampled, keep weight 1. The truncation at
    `ratio_max` is ours.
    """

    ratio_max: float = 2.0

    def __post_init__(self) -> None:
        check_range("ratio_max", self.ratio_max, 1.0, math.inf)

    def __call__(
        self, coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Float[Tensor, "B T"]:
        logp = _mask_logp(coefficient, logp, batch)
        ratio = importance_ratio(logp, batch).detach().clamp(max=self.ratio_max)
        return -coefficient * ratio * logp


@dataclass(frozen=True)
class log_likelihood(Surrogate):
    """-c · log p, whoever drew the tokens: for coefficients that hold what an importance ratio would add.

    GARL's and PAFT's do, since w̄ and the baseline need the ratio too (`qredit.core.importance`). On policy it equals
    `score_function`.
    """

    def __call__(
        self, coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Float[Tensor, "B T"]:
        return -coefficient * _mask_logp(coefficient, logp, batch)


class ClippedSurrogate(Surrogate):
    """-min(ratio · c, clip(ratio) · c): what the surrogates with a trust region share.

    `low` and `high` are its half-widths below and above a ratio of 1. A stage may scale both, token by token
    (`Coefficient.clip_scale`).

    `dual_clip` > 1 caps the loss of c < 0 at -dual_clip · c, so that its gradient is 0 beyond that ratio: PPO's own
    clip does not bound it, and one token that became far more likely than it was would rule the step (arXiv
    1912.09729, eq. 5; verl's `clip_ratio_c`, TRL's `delta`). None leaves it without a bound.
    """

    low: float
    high: float
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        check_range("the lower clip", self.low, 0.0, 1.0)
        check_range("the upper clip", self.high, 0.0, math.inf)
        if self.dual_clip is not None:
            check_range("the dual clip", self.dual_clip, 1.0, math.inf)

    def __call__(
        self, coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Float[Tensor, "B T"]:
        return self.clip(coefficient, logp, batch, 1.0)

    @abstractmethod
    def clip(
        self,
        coefficient: Float[Tensor, "B T"],
        logp: Float[Tensor, "B T"],
        batch: RolloutBatch,
        scale: Float[Tensor, "B T"] | float,
    ) -> Float[Tensor, "B T"]:
        """The loss at each position, within a trust region whose half-widths are multiplied.

        Args:
            coefficient: of each token.
            logp: in nats, with gradient.
            batch: whose `sampler_logp` the ratio is taken to.
            scale: factor on the half-widths, of each position or of all.
        """

    def _cap(self, loss: Float[Tensor, "B T"], coefficient: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        if self.dual_clip is None:
            return loss
        return torch.where(coefficient < 0, torch.minimum(loss, -self.dual_clip * coefficient), loss)


class _ClippedRatio(ClippedSurrogate):
    """The clip of PPO, with the ratio that a subclass says."""

    def clip(
        self,
        coefficient: Float[Tensor, "B T"],
        logp: Float[Tensor, "B T"],
        batch: RolloutBatch,
        scale: Float[Tensor, "B T"] | float,
    ) -> Float[Tensor, "B T"]:
        ratio = self.ratio(coefficient, logp, batch)
        lowest, highest = 1 - self.low * scale, 1 + self.high * scale
        clipped = ratio.clamp(lowest, highest)  # type: ignore[arg-type]  # two numbers or two tensors
        return self._cap(-torch.minimum(ratio * coefficient, clipped * coefficient), coefficient)

    def ratio(
        self, coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Float[Tensor, "B T"]:
        """current/sampler, differentiable, 1 where the coefficient is 0."""
        return importance_ratio(_mask_logp(coefficient, logp, batch), batch)


@dataclass(frozen=True)
class clipped_ratio(_ClippedRatio):
    """-min(ratio · c, clip(ratio, 1 - low, 1 + high) · c), the clipped surrogate of PPO (arXiv 1707.06347, eq. 7).

    `low` and `high` are the half-widths of the trust region below and above 1; DAPO's "clip-higher" sets high > low.
    With `dual_clip` the loss of c < 0 is at most -dual_clip · c (arXiv 1912.09729, eq. 5); None sets no bound.
    """

    low: float = 0.2
    high: float = 0.2
    dual_clip: float | None = None


@dataclass(frozen=True)
class clipped_sequence_ratio(_ClippedRatio):
    """-min(ρ · c, clip(ρ, 1 - low, 1 + high) · c) with one ratio for the whole rollout: GSPO (arXiv 2507.18071).

        ρ_it = sg[s_i] · p_it / sg[p_it],   s_i = exp( mean over sampled tokens t of log p_it - sampler's log p_it )

    Its value is the same on every sampled token; its slope in log p_it is s_i, so that under `mean_per_rollout` a
    coefficient per rollout has the gradient of s_i itself. Tokens that were not sampled have ratio 1.
    """

    low: float
    high: float

    def ratio(
        self, coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Float[Tensor, "B T"]:
        whole = torch.where(batch.sampled & (coefficient != 0), sequence_ratio(logp.detach(), batch), 1.0)
        logp = _mask_logp(coefficient, logp, batch)
        return whole * torch.exp(logp - logp.detach())


def sequence_ratio(logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B 1"]:
    """The geometric mean of current/sampler over the sampled tokens of each row; 1 on-policy and without a token."""
    if batch.sampler_logp is None:
        return torch.ones_like(logp[:, :1])
    sampler = batch.sampler_logp.to(logp.dtype)
    change = torch.where(batch.sampled & (logp != sampler), logp - sampler, 0.0)
    return torch.exp(change.sum(1, keepdim=True) / batch.sampled.sum(1, keepdim=True).clamp(min=1))


@dataclass(frozen=True)
class clipped_turn_ratio(_ClippedRatio):
    """-min(ρ · c, clip(ρ, 1 - low, 1 + high) · c) with one ratio for each turn (arXiv 2605.06200).

        ρ_it = sg[s_k] · p_it / sg[p_it],   s_k = exp( mean over turn k's sampled tokens of log p - sampler's log p )

    In a rollout of one turn it is `clipped_sequence_ratio`. It reads `turn`; sampled tokens of no turn have ratio 1.
    """

    low: float
    high: float
    needs: ClassVar[frozenset[str]] = frozenset({"turn"})

    def ratio(
        self, coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Float[Tensor, "B T"]:
        turns = Segments.of(batch.require("turn", str(self)), batch.sampled)
        change = torch.zeros_like(logp)
        if batch.sampler_logp is not None:
            sampler = batch.sampler_logp.to(logp.dtype)
            change = torch.where(turns.inside & (logp != sampler), logp.detach() - sampler, 0.0)
        whole = torch.where(coefficient != 0, turns.spread(turns.mean(change)).exp(), 1.0)
        logp = _mask_logp(coefficient, logp, batch)
        return whole * torch.exp(logp - logp.detach())


@dataclass(frozen=True)
class plain_ratio(Surrogate):
    """-ratio · c, ratio = current/sampler: the surrogate of PPO before its clip (arXiv 1707.06347, eq. 6)."""

    def __call__(
        self, coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Float[Tensor, "B T"]:
        return -coefficient * importance_ratio(_mask_logp(coefficient, logp, batch), batch)


@dataclass(frozen=True)
class gradient_keeping_clip(ClippedSurrogate):
    """-min(ratio · c, clip(ratio) · c) whose upper bound is (1 + high) · ratio / sg[ratio] (arXiv 2510.14545).

    In value it is PPO's clipped surrogate. Its slope differs in one region: for c > 0 and ratio > 1 + high it is
    -(1 + high) · c · ∇log p where PPO's is 0, so a good token that has moved far still learns, by a bounded amount. For
    c < 0 and ratio < 1 - low it stays 0. `dual_clip` as in `clipped_ratio`.
    """

    low: float = 0.2
    high: float = 0.2
    dual_clip: float | None = None

    def clip(
        self,
        coefficient: Float[Tensor, "B T"],
        logp: Float[Tensor, "B T"],
        batch: RolloutBatch,
        scale: Float[Tensor, "B T"] | float,
    ) -> Float[Tensor, "B T"]:
        logp = _mask_logp(coefficient, logp, batch)
        ratio, highest = importance_ratio(logp, batch), 1 + self.high * scale
        bound = highest * torch.exp(logp - logp.detach())  # not ratio / sg[ratio], which is 0/0 far off
        clipped = torch.where(ratio > highest, bound, ratio).clamp(min=1 - self.low * scale)
        return self._cap(-torch.minimum(ratio * coefficient, clipped * coefficient), coefficient)


def importance_ratio(logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
    """current/sampler per token, differentiable in `logp`; its value is 1 on-policy and outside `batch.sampled`."""
    reference = logp.detach()
    if batch.sampler_logp is not None:
        reference = torch.where(batch.sampled, batch.sampler_logp.to(logp.dtype), reference)
    return torch.exp(logp - reference)


def _mask_logp(
    coefficient: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
) -> Float[Tensor, "B T"]:
    """log p where the coefficient is not 0, elsewhere a constant whose ratio is 1: 0 · (-inf) would be NaN."""
    constant = torch.zeros_like(logp)
    if batch.sampler_logp is not None:
        constant = torch.where(batch.sampled, batch.sampler_logp.to(logp.dtype), constant)
    return torch.where(coefficient != 0, logp, constant)
