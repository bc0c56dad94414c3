"""Penalties on tokens whose advantage and log-probability vary together: those that drive entropy down."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope
from qredit.core.penalty import TokenMeanPenalty
from qredit.core.schedule import check_range
from qredit.penalties.entropy import EntropyPenalty
from qredit.stats.masked import apply_mask, covariance, select_top


@dataclass(frozen=True)
class kl_covariance(TokenMeanPenalty):
    """strength · |log p - log p_sampler| on the tokens with the largest covariance, over the number of sampled tokens.

        C_it = (c_it - mean c) · (log p_it - mean log p),   means over all N sampled tokens of the step

    The max(1, ⌊share · N⌋) tokens of largest C pay; C only selects and has no gradient. Zero, with slope 0, where the
    parameters are those that sampled: the first of several updates on one batch is not changed.

    Args:
        strength: 1 in the authors' scripts.
        share: a fraction. The authors' `k_percent` is a percentage: 0.02, of their 32B script, is 2e-4 here; 0.2, of
            their 7B script, is 2e-3.

    Source: arXiv 2505.22617 (KL-Cov), official code. Difference: statistics over the step, not a micro-batch.
    """

    strength: float = 1.0
    share: float = 2e-4
    needs = frozenset({"logp"})
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0)

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        logp = batch.require("logp", str(self)).double()
        varying = covariance(coefficient.double(), logp, batch.drawn_once)
        count = max(1, int(self.share * int(batch.drawn_once.sum()) + 1e-9))
        return self.strength * select_top(varying, batch.drawn_once, count).double()

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return log_ratio(logp, batch).abs()


@dataclass(frozen=True)
class covariance_entropy_bonus(EntropyPenalty):
    """-mean over sampled tokens of w · H: an entropy bonus on tokens of large covariance.

        w_it = clip(scale · softmax over the row's sampled tokens of C_it, 0, most),   C as in `kl_covariance`

    w is a constant. Rows without a sampled token have no part.

    Source: arXiv 2508.03178 (Light-IF, TEA-RL), the function of its official code, which no path of that release
    reaches as it stands. Difference: that function would differentiate w through log p as well; statistics over the
    step, not a micro-batch.
    """

    scale: float = 10.0
    most: float = 5.0
    needs = frozenset({"entropy", "logp"})
    scope = Scope.BATCH

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        logp = batch.require("logp", str(self)).double()
        varying = covariance(coefficient.double(), logp, batch.drawn_once)
        spread = apply_mask(varying, batch.drawn_once, -torch.inf).softmax(1)
        return -apply_mask((self.scale * spread).clamp(max=self.most), batch.drawn_once)


def log_ratio(logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
    """log p - log p_sampler of each sampled token, differentiable; 0 on-policy and on other tokens."""
    before = logp.detach() if batch.sampler_logp is None else batch.sampler_logp.to(logp.dtype)
    return torch.where(batch.drawn_once, logp - before, 0.0)
