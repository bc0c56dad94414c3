"""Importance ratios of whole rationales: how much a rollout of older weights counts under the current ones.

With rationales drawn from μ (older weights, or another sampler) instead of the current policy p_θ, a mean over them
estimates the wrong expectation. Weighing each by ρ = p_θ(z|x)/μ(z|x) puts that right:

    E_μ[ρ f(z)] = E_θ[f(z)]

ρ is a product over all sampled tokens of the row: those of the rationale where it ends in the gold answer, and those of
the sampled answer, too, where it ends in that. It has mean 1, but its spread grows with the length of z and with the
distance between θ and μ. So it is truncated, which bounds the variance and costs a bias; docs/theory.md has the size of
that bias by enumeration. Forced tokens were not drawn and have no ratio; nor has the gold answer.

Where k of a group's M rationales come from a proposal r, the policy shown the gold answer (`core/hint.py`), each is
weighed as a draw of the mixture of both sources, λ = k/M:

    u = p_θ(z|x) / [(1-λ) μ(z|x) + λ r(z|x,y*)],   mean over both sources of E[u f(z)] = E_θ[f(z)]

This is the balance heuristic of multiple importance sampling. On policy, μ = p_θ, u is at most 1/(1-λ).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.field_names import HINTED_LOGP
from qredit.core.hint import hint
from qredit.core.schedule import check_range


class RationaleRatio(ABC):
    """log ρ of each row: how much its rationale counts under the current policy.

    Attributes:
        needs: batch fields that it reads on policy, too.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def log(self, batch: RolloutBatch, wanted_by: str) -> Float[Tensor, " B"]:
        """log ρ (B,), float64, nats, for the stage printed as `wanted_by`."""


@dataclass(frozen=True)
class TruncatedRatio(RationaleRatio):
    """log ρ of each row, from the change in log-probability of its sampled tokens.

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
        return self._truncate(_change(batch, batch.require("logp", wanted_by), batch.sampler_logp))

    @abstractmethod
    def _truncate(self, change: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        """log ρ from log p_θ - log μ of each token, 0 where a token does not count."""


@dataclass(frozen=True)
class sequence_truncate(TruncatedRatio):
    """ρ = min(Π_t p_θ(z_t)/μ(z_t), limit): the ratio of the whole rationale, then cut.

    What is below the limit is exact. Name and default are TRL's for the ratio between its sampler and its trainer
    (`vllm_importance_sampling_mode`, `vllm_importance_sampling_clip_max`).
    """

    limit: float = 3.0

    def _truncate(self, change: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        return change.sum(1).clamp(max=math.log(self.limit))


@dataclass(frozen=True)
class token_truncate(TruncatedRatio):
    """ρ = Π_t min(p_θ(z_t)/μ(z_t), limit): each token's ratio is cut, then multiplied.

    It cuts single surprising tokens and leaves a slow drift over many tokens alone, so the product may be large. The
    name is TRL's.
    """

    limit: float = 2.0

    def _truncate(self, change: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        return change.clamp(max=math.log(self.limit)).sum(1)


@dataclass(frozen=True)
class sequence_mask(TruncatedRatio):
    """ρ = Π_t p_θ(z_t)/μ(z_t) where that is at most `limit`, else 0: such a rationale is left out.

    It trusts no ratio that is large, where `sequence_truncate` counts it as the limit. It loses more: the rationale
    counts as one of weight 0, in w̄ too. The name is TRL's, and there the default.
    """

    limit: float = 3.0

    def _truncate(self, change: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        whole = change.sum(1)
        return torch.where(whole > math.log(self.limit), -torch.inf, whole)


@dataclass(frozen=True)
class token_mask(TruncatedRatio):
    """ρ = Π_t over the tokens whose own ratio is at most `limit`, the others counting as 1.

    A single token that the sampler held for far less likely than the policy does is not believed. The name is TRL's,
    where such a token's loss is left out; here the ratio is the whole rationale's, and all its tokens learn.
    """

    limit: float = 2.0

    def _truncate(self, change: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        return torch.where(change > math.log(self.limit), 0.0, change).sum(1)


DEFAULT_RATIO = sequence_truncate()
"""The ratio of a whole rationale, cut at 3: what the likelihood stages use unless another is given."""


@dataclass(frozen=True)
class mixture_weight(RationaleRatio):
    """u = ρ · μ / [(1-λ) μ + λ r]: the weight of a draw from plain prompt and hinted prompt together.

    λ is the share of the group's rows that `proposal` marks. μ is the plain prompt's density when the rows were made
    (`sampler_logp`, or `logp` on policy), r the hinted prompt's (`logp@hint`), both over sampled tokens. In a
    group without such rows u = ρ, bit for bit.

    Args:
        ratio: how ρ = p_θ/μ is truncated; the rest of u lies between 0 and 1/(1-λ).
    """

    ratio: RationaleRatio = DEFAULT_RATIO
    needs: ClassVar[frozenset[str]] = frozenset({"proposal", "logp", HINTED_LOGP})

    def log(self, batch: RolloutBatch, wanted_by: str) -> Float[Tensor, " B"]:
        rho = self.ratio.log(batch, wanted_by)
        drawn = batch.proposal
        if drawn is None or not bool(drawn.any()):
            return rho
        then = batch.require("logp", wanted_by) if batch.sampler_logp is None else batch.sampler_logp
        log_r_over_mu = _change(batch, batch.require(HINTED_LOGP, wanted_by), then).sum(1)
        share = batch.groups.mean(drawn.double(), torch.ones_like(drawn))
        # log[(1-λ) + λ r/μ]; log 0 = -inf drops the source that has no rows
        mixture = torch.logaddexp((1 - share).log(), share.log() + log_r_over_mu)
        return torch.where(share == 0, rho, rho - mixture)


def weigh_proposal(ratio: RationaleRatio, proposal: hint | None) -> RationaleRatio:
    """The ratio where rationales come from the plain prompt alone, the mixture's weight where some come from a hint."""
    return mixture_weight(ratio) if proposal is not None and proposal.share else ratio


def _change(batch: RolloutBatch, now: Float[Tensor, "B T"], then: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """log now - log then of each sampled token in float64, 0 elsewhere.

    In a row that ends in the gold answer these are the rationale's. Where a row ends in the sampled answer, its reward
    depends on that too, and so does the ratio.
    """
    now, then = now.double(), then.double()
    # Equal numbers are skipped, not subtracted: -inf less -inf would be NaN.
    return torch.where(batch.sampled & (now != then), now - then, 0.0)
