"""How far one next-token distribution p lies from another one p', over the whole vocabulary."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.field_names import FORWARD_KL_PREFIX, HELLINGER_PREFIX, KL_PREFIX

Shares = Float[Tensor, "N V"]
"""log-probabilities of the whole vocabulary at each token."""


@dataclass(frozen=True)
class Divergence:
    """A divergence D(p, p') and its slope.

    Attributes:
        value: (log p, log p') → D of each token, (N,).
        slope: (log p, log p') → ∂D/∂s with p = softmax(s), (N, V).
    """

    value: Callable[[Shares, Shares], Float[Tensor, " N"]]
    slope: Callable[[Shares, Shares], Shares]


def reverse_kl(log_p: Shares, log_other: Shares) -> Float[Tensor, " N"]:
    """KL(p ‖ p') = Σ p (log p - log p'), in nats."""
    found: Tensor = torch.linalg.vecdot(log_p.exp(), log_p - log_other)
    return found


def _reverse_slope(log_p: Shares, log_other: Shares) -> Shares:
    """p · (log p - log p' - KL)."""
    gap = log_p - log_other
    slope: Tensor = log_p.exp() * (gap - torch.linalg.vecdot(log_p.exp(), gap)[:, None])
    return slope


def forward_kl(log_p: Shares, log_other: Shares) -> Float[Tensor, " N"]:
    """KL(p' ‖ p) = Σ p' (log p' - log p), in nats."""
    found: Tensor = torch.linalg.vecdot(log_other.exp(), log_other - log_p)
    return found


def _forward_slope(log_p: Shares, log_other: Shares) -> Shares:
    """p - p'."""
    return log_p.exp() - log_other.exp()


def hellinger(log_p: Shares, log_other: Shares) -> Float[Tensor, " N"]:
    """sqrt(Σ (√p - √p')² / 2), 0 … 1."""
    return ((log_p / 2).exp() - (log_other / 2).exp()).square().sum(1).div(2).sqrt()


def _no_slope(log_p: Shares, log_other: Shares) -> Shares:
    return torch.zeros_like(log_p)


REVERSE = Divergence(reverse_kl, _reverse_slope)
PLAIN = MappingProxyType(
    {
        KL_PREFIX: REVERSE,
        FORWARD_KL_PREFIX: Divergence(forward_kl, _forward_slope),
        HELLINGER_PREFIX: Divergence(hellinger, _no_slope),
    }
)
"""What fields of these prefixes hold."""


def temper_by_distance(
    distance: Float[Tensor, " S"], row: Float[Tensor, " S"] | Tensor, hardness: float
) -> Float[Tensor, " S"]:
    """T = exp(-hardness · tanh(log(s / m))) of each token, m the median of its row's tokens; 1 where m is 0.

    Tokens that are farther from the teacher than the row's median are sharpened, nearer ones softened, between
    exp(-hardness) and exp(hardness). Of an even number of tokens the median is the lower of the middle two.

    Args:
        distance: (S,) s, how far policy and teacher lie apart.
        row: (S,) number of the row that each token stands in.
        hardness: c; 0 leaves every token at temperature 1.

    Source: arXiv 2510.11615 (AdaKD), official code. Difference: its median runs over a micro-batch's kept tokens, so
    that a token's temperature depends on what lies beside its row in memory.
    """
    temperature = torch.ones_like(distance)
    for one in row.unique().tolist():
        own = row == one
        median = distance[own].median()
        if median > 0:
            ratio = (distance[own] / median).clamp(min=1e-8)
            temperature[own] = torch.exp(-hardness * torch.tanh(ratio.log()))
    return temperature
