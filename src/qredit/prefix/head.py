"""Log-probability and entropy of chosen tokens, through the head, without the logits of every position.

With h a hidden state, W the head, s = W·h / temperature, lse = log Σ e^s, p = e^{s - lse}:

    log p(y) = s_y - lse        H = lse - Σ p·s        (nats)
    ∂/∂s: g_logp·(onehot(y) - p) - g_H·p·(log p + H)

Logits are made for as many tokens at a time as `MOST_LOGITS` holds, and made again in the backward pass.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

MOST_LOGITS = 1 << 24  # 64 MiB in float32


def token_scores(
    hidden: Float[Tensor, "S E"],
    weight: Float[Tensor, "V E"],
    bias: Float[Tensor, " V"] | None,
    target: Int[Tensor, " S"],
    temperature: float = 1.0,
) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """log p(target) and entropy of each position's next-token distribution, float32, differentiable."""
    scores: tuple[Tensor, Tensor] = _TokenScores.apply(hidden, weight, bias, target, temperature)
    return scores


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logp, entropy, lse = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
        for part in _parts(len(hidden), weight.shape[0]):
            scores = _logits(hidden[part], weight, bias, temperature)
            lse[part] = scores.logsumexp(1)
            logp[part] = scores.gather(1, target[part, None])[:, 0] - lse[part]
            share = (scores - lse[part, None]).exp_()
            entropy[part] = lse[part] - torch.linalg.vecdot(share, scores)
        ctx.save_for_backward(hidden, weight, bias, target, lse, entropy)
        ctx.temperature = temperature
        return logp, entropy

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_logp: Tensor, grad_entropy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        hidden, weight, bias, target, lse, entropy = ctx.saved_tensors
        slope_hidden = torch.empty_like(hidden)
        slope_weight = torch.zeros_like(weight, dtype=torch.float32)
        slope_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for part in _parts(len(hidden), weight.shape[0]):
            log_share = _logits(hidden[part], weight, bias, ctx.temperature) - lse[part, None]
            share = log_share.exp()
            slope = share * -grad_logp[part, None]
            slope.scatter_add_(1, target[part, None], grad_logp[part, None])
            if bool(grad_entropy[part].any()):
                slope -= grad_entropy[part, None] * share * (log_share + entropy[part, None])
            slope /= ctx.temperature
            slope_hidden[part] = (slope @ weight.float()).to(hidden.dtype)
            slope_weight.addmm_(slope.T, hidden[part].float())
            if slope_bias is not None:
                slope_bias += slope.sum(0)
        return slope_hidden, slope_weight.to(weight.dtype), slope_bias, None, None


def _parts(tokens: int, vocabulary: int) -> list[slice]:
    size = max(MOST_LOGITS // vocabulary, 1)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Float[Tensor, "S V"]:
    scores = hidden.float() @ weight.float().T
    if bias is not None:
        scores = scores + bias.float()
    return scores if temperature == 1.0 else scores / temperature
