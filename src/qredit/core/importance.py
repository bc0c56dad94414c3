"""Importance ratios of whole rationales: how much a rollout of older weights counts under the current ones.

With rationales drawn from μ (older weights, or another sampler) instead of the current policy p_θ, a mean over them
estimates the wrong expectation. Weighing each by ρ = p_θ(z|x)/μ(z|x) puts that right:

    E_μ[ρ f(z)] = E_θ[f(z)]

ρ is a product over all sampled tokens of the rationale. It has mean 1, but its spread grows with the length of z and
with the distance between θ and μ. So it is truncated, which bounds the variance and costs a bias; docs/theory.md has
the size of that bias by enumeration. Forced tokens were not drawn and have no ratio; nor has the gold answer.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.schedule import check_range


@dataclass(frozen=True)
class RationaleRatio(ABC):
    """log ρ of each row, from the change in log-probability of its sampled rationale tokens.

    Args:
        limit: the largest ratio, ≥ 1. `math.inf` truncates nothing and has no bias.
    """

    limit: float

    def __post_init__(self) -> None:
        check_range("limit", self.limit, 1.0, math.inf)

    def log(self, batch: RolloutBatch, wanted_by: str) -> Float[Tensor, " B"]:
        """log ρ (B,), float64, nats. Exactly 0 where `batch.sampler_logp` is None: the rollouts are the policy's own.

        Raises:
            QreditError: `sampler_logp` is there and `logp` is not.
        """
        if batch.sampler_logp is None:
            return torch.zeros(len(batch.mask), dtype=torch.float64, device=batch.mask.device)
        now, then = batch.require("logp", wanted_by).double(), batch.sampler_logp.double()
        # Equal numbers are skipped, not subtracted: -inf less -inf would be NaN.
        counts = batch.rationale & batch.sampled & (now != then)
        return self._truncate(torch.where(counts, now - then, 0.0))

    @abstractmethod
    def _truncate(self, change: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        """log ρ from log p_θ - log μ of each token, 0 where a token does not count."""


@dataclass(frozen=True)
class sequence_truncate(RationaleRatio):
    """ρ = min(Π_t p_θ(z_t)/μ(z_t), limit): the ratio of the whole rationale, then cut.

    What is below the limit is exact. Name and default are TRL's for the ratio between its sampler and its trainer
    (`vllm_importance_sampling_mode`, `vllm_importance_sampling_clip_max`).
    """

    limit: float = 3.0

    def _truncate(self, change: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        return change.sum(1).clamp(max=math.log(self.limit))


@dataclass(frozen=True)
class token_truncate(RationaleRatio):
    """ρ = Π_t min(p_θ(z_t)/μ(z_t), limit): each token's ratio is cut, then multiplied.

    It cuts single surprising tokens and leaves a slow drift over many tokens alone, so the product may be large. The
    name is TRL's.
    """

    limit: float = 2.0

    def _truncate(self, change: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        return change.clamp(max=math.log(self.limit)).sum(1)


DEFAULT_RATIO = sequence_truncate()
"""The ratio of a whole rationale, cut at 3: what the likelihood stages use unless another is given."""
