"""What the head says of chosen tokens, without the logits of every position.

With h a hidden state, W the head, s = W·h / temperature, lse = log Σ e^s, p = e^{s - lse}:

    log p(y) = s_y - lse        H = lse - Σ p·s        (nats)
    ∂/∂s: g_logp·(onehot(y) - p) - g_H·p·(log p + H)

The entropy of a nucleus is H of the softmax over its tokens alone, its membership a constant. Logits are made for as
many tokens at a time as `MOST_LOGITS` holds, and made again in the backward pass.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MOST_LOGITS = 1 << 24  # 64 MiB in float32


def token_scores(
    hidden: Float[Tensor, "S E"],
    weight: Float[Tensor, "V E"],
    bias: Float[Tensor, " V"] | None,
    target: Int[Tensor, " S"],
    temperature: float = 1.0,
    nuclei: tuple[float, ...] = (),
) -> tuple[Float[Tensor, " S"], Float[Tensor, "S K"]]:
    """log p(target), and entropies of each position's next-token distribution; float32, differentiable.

    Args:
        nuclei: probability masses; the first column of the entropies is that of the whole distribution, the next ones
            those of its nuclei.
    """
    scores: tuple[Tensor, Tensor] = _TokenScores.apply(hidden, weight, bias, target, temperature, nuclei)
    return scores


@torch.no_grad()
def prediction_errors(
    hidden: Float[Tensor, "S E"],
    weight: Float[Tensor, "V E"],
    bias: Float[Tensor, " V"] | None,
    target: Int[Tensor, " S"],
    among: Int[Tensor, " v"],
) -> Float[Tensor, "S v"]:
    """onehot(target) - p at temperature 1, of the tokens `among` alone, not renormalised."""
    errors = hidden.new_empty(len(hidden), len(among), dtype=torch.float32)
    for part in _parts(len(hidden), weight.shape[0]):
        share = _logits(hidden[part], weight, bias, 1.0).softmax(1)[:, among]
        errors[part] = (target[part, None] == among).float() - share
    return errors


def in_nucleus(share: Float[Tensor, "S V"], mass: float) -> Bool[Tensor, "S V"]:
    """The most probable tokens whose probabilities sum to no more than `mass`: the one that crosses it is left out.

    The reading of SIREN's released code (arXiv 2509.25133); a token that alone holds more leaves nothing.
    """
    ordered, order = share.sort(1, descending=True)
    inside = ordered.cumsum(1) <= mass
    return torch.zeros_like(inside).scatter_(1, order, inside)


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        temperature: float,
        nuclei: tuple[float, ...],
    ) -> tuple[Tensor, Tensor]:
        logp, lse = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(2))
        entropy = hidden.new_empty(len(hidden), 1 + len(nuclei), dtype=torch.float32)
        for part in _parts(len(hidden), weight.shape[0]):
            scores = _logits(hidden[part], weight, bias, temperature)
            lse[part] = scores.logsumexp(1)
            logp[part] = scores.gather(1, target[part, None])[:, 0] - lse[part]
            share = (scores - lse[part, None]).exp_()
            entropy[part, 0] = lse[part] - torch.linalg.vecdot(share, scores)
            for column, mass in enumerate(nuclei, start=1):
                log_share = _within(scores, in_nucleus(share, mass))
                entropy[part, column] = -torch.linalg.vecdot(log_share.exp(), log_share.clamp(min=-1e30))
        ctx.save_for_backward(hidden, weight, bias, target, lse, entropy)
        ctx.temperature, ctx.nuclei = temperature, nuclei
        return logp, entropy

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_logp: Tensor, grad_entropy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None, None, None]:
        hidden, weight, bias, target, lse, entropy = ctx.saved_tensors
        slope_hidden = torch.empty_like(hidden)
        slope_weight = torch.zeros_like(weight, dtype=torch.float32)
        slope_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for part in _parts(len(hidden), weight.shape[0]):
            log_share = _logits(hidden[part], weight, bias, ctx.temperature) - lse[part, None]
            share = log_share.exp()
            slope = share * -grad_logp[part, None]
            slope.scatter_add_(1, target[part, None], grad_logp[part, None])
            for column in grad_entropy[part].any(0).nonzero()[:, 0].tolist():
                inside = log_share if column == 0 else _within(log_share, in_nucleus(share, ctx.nuclei[column - 1]))
                slope -= grad_entropy[part, column, None] * _entropy_slope(inside, entropy[part, column, None])
            slope /= ctx.temperature
            slope_hidden[part] = (slope @ weight.float()).to(hidden.dtype)
            slope_weight.addmm_(slope.T, hidden[part].float())
            if slope_bias is not None:
                slope_bias += slope.sum(0)
        return slope_hidden, slope_weight.to(weight.dtype), slope_bias, None, None, None


def _within(scores: Float[Tensor, "S V"], inside: Bool[Tensor, "S V"]) -> Float[Tensor, "S V"]:
    """log-probabilities of the softmax over these tokens alone, -inf outside; all -inf where there are none."""
    kept = torch.where(inside, scores, -torch.inf)
    return torch.where(inside, kept - kept.logsumexp(1, keepdim=True), -torch.inf)


def _entropy_slope(log_share: Float[Tensor, "S V"], entropy: Float[Tensor, "S 1"]) -> Float[Tensor, "S V"]:
    """-∂H/∂s = p·(log p + H); 0 where p is."""
    return log_share.exp() * (log_share.clamp(min=-1e30) + entropy)


def _parts(tokens: int, vocabulary: int) -> list[slice]:
    size = max(MOST_LOGITS // vocabulary, 1)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Float[Tensor, "S V"]:
    scores = hidden.float() @ weight.float().T
    if bias is not None:
        scores = scores + bias.float()
    return scores if temperature == 1.0 else scores / temperature
