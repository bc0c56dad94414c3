"""Inner products of the gradients that single tokens give the output head, without ever forming one.

The gradient of log p(token) in the head is the outer product e hᵀ of its prediction error e = onehot(token) - p and the
hidden state h that predicts it. So ⟨token a, token b⟩ = ⟨e_a, e_b⟩ ⟨h_a, h_b⟩, and against a weighted sum of many such
gradients, a bank M = Σ_k w_k e_k h_kᵀ (V' × E), the inner product is eᵀ M h.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch

NEEDS = frozenset({"prediction_error", "hidden"})


@dataclass(frozen=True, eq=False)
class TokenGradients:
    """Head gradients of N tokens, as their two factors, in float32 at least.

    Attributes:
        error: (N, V') prediction errors on the token ids that occur in the generation, not renormalised.
        hidden: (N, E) last-layer states.
    """

    error: Float[Tensor, "N V"]
    hidden: Float[Tensor, "N E"]

    @classmethod
    def of(cls, batch: RolloutBatch, counts: Bool[Tensor, "B T"], wanted_by: str) -> "TokenGradients":
        """Those of the tokens that `counts` marks, row after row.

        Args:
            batch: whole groups, with the fields that are needed.
            counts: (B, T) True where a token counts.
            wanted_by: what errors say needs the field.
        """
        error, hidden = (batch.require(name, wanted_by)[counts] for name in ("prediction_error", "hidden"))
        dtype = torch.promote_types(torch.promote_types(error.dtype, hidden.dtype), torch.float32)
        return cls(error.to(dtype), hidden.to(dtype))

    def bank(self, weight: Float[Tensor, " N"]) -> Float[Tensor, "V E"]:
        """Σ_k weight_k e_k h_kᵀ."""
        return (weight.to(self.error)[:, None] * self.error).T @ self.hidden

    def inner(self, bank: Float[Tensor, "V E"]) -> Float[Tensor, " N"]:
        """⟨e hᵀ, bank⟩ of each token."""
        return ((self.error @ bank) * self.hidden).sum(1).double()
