"""Tokens of large covariance between advantage and log-probability taken out of an update."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.token_weight import select_tokens
from qredit.stats.masked import covariance
from qredit.utils.seed import derive_seed


@dataclass(frozen=True)
class drop_covariance_band(Credit):
    """c_it ← 0 on a few tokens drawn at random among those of large covariance.

        C_it = (c_it - mean c) · (log p_it - mean log p),   means over the N sampled tokens of scored rollouts
        eligible: low < C_it < high, and the clipped ratio has a gradient there

    n = max(1, ⌊share · N⌋) of them are drawn without replacement, all of them if there are fewer; none eligible changes
    nothing. The reduction's denominator stays. The draw is a function of the seed and of the order of the covariances,
    so it does not depend on the order of rows. The ratio is read from `sampler_logp` where the batch has one.

    Args:
        share: a fraction of the sampled tokens.
        low, high: the band.
        clip_low, clip_high: half-widths of the clip of the ratio that follows: what it stops is not eligible.

    Source: arXiv 2505.22617 (Clip-Cov), official code. Difference: statistics over the step, not a micro-batch; a
    seeded draw.
    """

    share: float = 2e-4
    low: float = 1.0
    high: float = 5.0
    clip_low: float = 1.0
    clip_high: float = 1.0
    needs = frozenset({"logp", "seed"})
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        logp, seed = batch.require("logp", str(self)).double(), int(batch.require("seed", str(self)))
        value = coefficient.value.expand(batch.mask.shape)
        counted = select_tokens(coefficient, batch)
        varying = covariance(value, logp, counted)
        eligible = counted & (varying > self.low) & (varying < self.high) & ~self._clipped(value, logp, batch)
        count = max(1, int(self.share * int(counted.sum()) + 1e-9))
        dropped = sample_tokens(varying, eligible, count, torch.Generator().manual_seed(derive_seed(seed)))
        return replace(coefficient, value=torch.where(dropped, 0.0, value))

    def _clipped(
        self, value: Float[Tensor, "B T"], logp: Float[Tensor, "B T"], batch: RolloutBatch
    ) -> Bool[Tensor, "B T"]:
        """Where the clipped surrogate has no gradient."""
        if batch.sampler_logp is None:
            return torch.zeros_like(batch.mask)
        ratio = (logp - batch.sampler_logp.double()).exp()
        return ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * value < ratio * value


def sample_tokens(
    rank_by: Float[Tensor, "B T"], eligible: Bool[Tensor, "B T"], count: int, generator: torch.Generator
) -> Bool[Tensor, "B T"]:
    """`count` of the eligible tokens, each set as likely as any other; laid out by `rank_by`, then drawn.

    Args:
        rank_by: (B, T) order in which tokens are laid out, so that a permutation of rows permutes the draw.
        eligible: (B, T) tokens that may be drawn.
        count: how many are drawn, all if there are fewer.
        generator: of the draws.
    """
    places = eligible.flatten().nonzero()[:, 0]
    places = places[rank_by.flatten()[places].argsort(stable=True)]
    chosen = places[torch.randperm(len(places), generator=generator)[:count].to(places.device)]
    found = torch.zeros_like(eligible).flatten()
    found[chosen] = True
    return found.view_as(eligible)
