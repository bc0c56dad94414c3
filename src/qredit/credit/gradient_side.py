"""Heavier tokens whose gradient lies clearly on the side of their advantage's sign."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.batch import RolloutBatch
from qredit.chain import Coefficient, Credit, Scope
from qredit.credit.token_gradient import NEEDS, TokenGradients
from qredit.credit.token_weight import times
from qredit.errors import QreditError
from qredit.schedule import check_range


def side_share(margin: Float[Tensor, " N"], up: Bool[Tensor, " N"]) -> Float[Tensor, " N"]:
    """α = sigmoid(margin / mean |margin| of the token's side); ½ where all margins of a side are 0."""
    scale = torch.where(up, _mean_size(margin[up]), _mean_size(margin[~up]))
    return torch.where(scale > 0, margin / torch.where(scale > 0, scale, 1.0), 0.0).sigmoid()


def _mean_size(margin: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    return margin.abs().sum() / max(len(margin), 1)


def side_shares(
    tokens: TokenGradients, size: Float[Tensor, " N"], up: Bool[Tensor, " N"], refinements: int
) -> Float[Tensor, " N"]:
    """α of each token: how much nearer its gradient lies to its own side's centre than to the other's.

    The centres are means weighted by `size`, then `refinements` times by size · α; α is scored after the last of them.
    """
    share = torch.ones_like(size)
    for _ in range(refinements + 1):
        to_up, to_down = (
            tokens.square_distance(tokens.bank(weight / weight.sum()))
            for weight in (size * share * up, size * share * ~up)
        )
        share = side_share(torch.where(up, to_down - to_up, to_up - to_down), up)
    return share


@dataclass(frozen=True)
class weigh_by_gradient_side(Credit):
    """c_t ← λ_t c_t under a denominator Σ λ_t, λ = least + (most - least) · α.

        α = sigmoid((‖v - μ_other‖² - ‖v - μ_own‖²) / γ),   μ± = means of v over c > 0 and over c < 0, weighted by |c|

    v is the token's gradient in the output head. After `refinements` recomputations of μ±, then weighted by |c| α, α is
    scored once more. λ is 1 on tokens whose c is 0, on those not sampled, and everywhere if all c have one sign.

    Source: arXiv 2605.21467, known from others' notes. Difference: γ, which the notes leave open, is the mean size of
    the margins of the token's side; gradients are those of the current policy at every update, the source's those of
    the rollouts.
    """

    least: float = 0.8
    most: float = 1.2
    refinements: int = 1
    needs = NEEDS
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("least", self.least, 0.0, math.inf)
        check_range("most", self.most, self.least, math.inf)
        if self.refinements < 0:
            raise QreditError(f"refinements must be at least 0, got {self.refinements}")

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value = coefficient.spread(batch)
        counts = batch.sampled & (value != 0)
        weight = torch.ones_like(value)
        size, up = value[counts].abs(), value[counts] > 0
        tokens = TokenGradients.of(batch, counts, str(self))
        if bool(up.any()) and bool((~up).any()):
            share = side_shares(tokens, size, up, self.refinements)
            weight[counts] = self.least + (self.most - self.least) * share
        return replace(times(coefficient, weight, counts), weight=weight)
