"""Heavier tokens whose gradient lies clearly on the side of their advantage's sign."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.token_weight import scale_tokens
from qredit.utils.errors import QreditError

_LEAST_VARIANCE = 1e-8  # the official code's floor under the square of γ


def side_scale(margin: Float[Tensor, " N"], up: Bool[Tensor, " N"]) -> Float[Tensor, " N"]:
    """γ of each token: the standard deviation, with n, of the margins of its side."""
    return torch.where(up, _deviation(margin[up]), _deviation(margin[~up]))


def _deviation(margin: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    centred = margin - margin.sum() / max(len(margin), 1)
    return (centred.square().sum() / max(len(margin), 1)).clamp(min=_LEAST_VARIANCE).sqrt()


def side_margins(
    proxy: Float[Tensor, "N E"], weight: Float[Tensor, " N"], up: Bool[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """‖v - μ_other‖² - ‖v - μ_own‖² of each token, μ the mean of v over a side, weighted; 0 for a side without tokens.

    Args:
        proxy: v.
        weight: (N,) of each token in its side's mean.
        up: which side each token is on.
    """
    above, below = (_centre(proxy, weight * side) for side in (up, ~up))
    nearer_above = (
        2 * (proxy @ (above - below)).double() + below.double().square().sum() - above.double().square().sum()
    )
    return torch.where(up, nearer_above, -nearer_above)


def _centre(proxy: Float[Tensor, "N E"], weight: Float[Tensor, " N"]) -> Float[Tensor, " E"]:
    return (weight / weight.sum().clamp(min=_LEAST_VARIANCE)).to(proxy) @ proxy


def side_shares(
    proxy: Float[Tensor, "N E"], size: Float[Tensor, " N"], up: Bool[Tensor, " N"], refinements: int
) -> Float[Tensor, " N"]:
    """α of each token: how much nearer its v lies to its own side's centre than to the other's.

    α = sigmoid(margin / γ). The centres are means weighted by `size`, then `refinements` times by size · α. γ is one
    round behind: that of the margins which the last centres were refined with.

    Args:
        proxy: (N, E) v of each token.
        size: (N,) weight of each token in its side's centre.
        up: (N,) which side each token is on.
        refinements: how often centres are computed anew from the shares.
    """
    margin = side_margins(proxy, size, up)
    scale = side_scale(margin, up)
    for _ in range(refinements):
        share = (margin / scale).sigmoid()
        scale = side_scale(margin, up)
        margin = side_margins(proxy, size * share, up)
    return (margin / scale).sigmoid()


@dataclass(frozen=True)
class weigh_by_gradient_side(Credit):
    """c_t ← λ_t c_t · N / Σ λ over the N sampled tokens of the generation, λ = least + (most - least) · α.

        α = sigmoid((‖v - μ_other‖² - ‖v - μ_own‖²) / γ),   v_t = (1 - p_t) h_t
        μ± = means of v over c > 0 and over c < 0, weighted by |c|, then by |c| α

    h_t is the state that predicts the token and p_t the token's probability: v does not say which token it is. γ is the
    standard deviation (n) of the margins of the token's side. λ is `least` where c is 0. Everything is that of the
    policy that sampled, computed once for a generation.

    Args:
        least, most: range of the weights.
        refinements: how often μ± are computed anew with the weights.

    Source: arXiv 2605.21467, official code.
    """

    least: float = 0.8
    most: float = 1.2
    refinements: int = 1
    needs = frozenset({"hidden", "logp"})
    scope = Scope.GENERATION

    def __post_init__(self) -> None:
        check_range("least", self.least, 0.0, math.inf)
        check_range("most", self.most, self.least, math.inf)
        if self.most == 0:
            raise QreditError("most must be above 0: every token would weigh 0")
        if self.refinements < 0:
            raise QreditError(f"refinements must be at least 0, got {self.refinements}")

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value = coefficient.spread(batch)
        counts = batch.sampled & (value != 0)
        weight = torch.full_like(value, self.least)
        share = side_shares(_proxy(batch, counts, str(self)), value[counts].abs(), value[counts] > 0, self.refinements)
        weight[counts] = self.least + (self.most - self.least) * share
        drawn = weight[batch.sampled]
        return scale_tokens(coefficient, weight * (len(drawn) / drawn.sum()), counts)


def _proxy(batch: RolloutBatch, counts: Bool[Tensor, "B T"], wanted_by: str) -> Float[Tensor, "N E"]:
    """v = (1 - p) h of the tokens that count, in float32 at least."""
    hidden, logp = (batch.require(name, wanted_by)[counts] for name in ("hidden", "logp"))
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return -torch.expm1(logp.double()).to(hidden)[:, None] * hidden
