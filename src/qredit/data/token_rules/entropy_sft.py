"""Entropy-SFT: the tokens that the model gets more wrong than it is unsure."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.schedule import check_range
from qredit.data.token_rules.protocol import TokenRule
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class entropy_sft(TokenRule):
    """Kept are the max(1, ⌊keep · N⌋) of the step's N completion tokens with the largest D = CE - gamma · H.

    CE is -log p of the token, H the entropy of the model's distribution there, both in nats and constants. So a token
    that the model knows is left out, and so is one whose place it leaves open. The earlier token comes first among
    equals. The loss is the mean of CE over the tokens that are kept.

    Args:
        keep: share of the tokens that is kept, above 0 and at most 1.
        gamma: what the entropy is multiplied by, 0 or more.

    Source: arXiv 2508.03178 (Light-IF), official code; the defaults are those of its recipe. Difference: it chooses
    within a micro-batch, so that a token's fate depends on what lies beside it in memory.
    """

    keep: float = 0.8
    gamma: float = 0.8

    def __post_init__(self) -> None:
        check_range("keep", self.keep, 0.0, 1.0)
        if self.keep == 0:
            raise QreditError("keep of entropy_sft must be above 0: no token would be learned from")
        if self.gamma < 0:
            raise QreditError(f"gamma of entropy_sft must be 0 or more, got {self.gamma!r}")

    def choose(self, cross_entropy: Float[Tensor, " N"], entropy: Float[Tensor, " N"]) -> Bool[Tensor, " N"]:
        wanted = max(int(self.keep * len(cross_entropy) + 1e-9), 1)
        order = (cross_entropy - self.gamma * entropy).argsort(descending=True, stable=True)
        return torch.zeros_like(cross_entropy, dtype=torch.bool).index_fill(0, order[:wanted], True)
