"""What the head says of chosen tokens, without the logits of every position.

With h a hidden state, W the head, s = W·h / temperature, lse = log Σ e^s, p = e^{s - lse}:

    log p(y) = s_y - lse        H = lse - Σ p·s        (nats)
    ∂/∂s: g_logp·(onehot(y) - p) - g_H·p·(log p + H)

The entropy of a nucleus is H of the softmax over its tokens alone, its membership a constant. Logits are made for as
many tokens at a time as `MAX_LOGITS` holds, and made again in the backward pass.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.penalties import nucleus
from qredit.shared_prefix.divergence import REVERSE, Divergence

MAX_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 26}  # what fits a cache; what fills a GPU
MIN_TOKENS = 64  # tokens at a time, so that reading a large head is shared


def score_tokens(
    hidden: Float[Tensor, "S E"],
    weight: Float[Tensor, "V E"],
    bias: Float[Tensor, " V"] | None,
    target: Int[Tensor, " S"],
    temperature: float = 1.0,
    nuclei: tuple[float, ...] = (),
) -> tuple[Float[Tensor, " S"], Float[Tensor, "S K"]]:
    """log p(target), and entropies of each position's next-token distribution; float32, differentiable.

    Args:
        hidden: (S, E) the state that predicts each token.
        weight: (V, E) of the head.
        bias: (V,) of the head, if it has one.
        target: (S,) id of each token.
        temperature: logits are divided by it.
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
    temperature: float = 1.0,
) -> Float[Tensor, "S v"]:
    """onehot(target) - p of the tokens `among` alone, not renormalised: times h / temperature, the head's gradient.

    Args:
        hidden: (S, E) the state that predicts each token.
        weight: (V, E) of the head.
        bias: (V,) of the head, if it has one.
        target: (S,) id of each token.
        among: (v,) ids on which the error is told.
        temperature: logits are divided by it.
    """
    head = _Head(weight, bias, temperature)
    errors = hidden.new_empty(len(hidden), len(among), dtype=torch.float32)
    for part in head.parts(len(hidden)):
        share = head.scores(hidden[part]).softmax(1)[:, among]
        errors[part] = (target[part, None] == among).float() - share
    return errors


def divergences(
    hidden: Float[Tensor, "S E"],
    weight: Float[Tensor, "V E"],
    bias: Float[Tensor, " V"] | None,
    other: tuple[Float[Tensor, "S F"], Float[Tensor, "V F"], Float[Tensor, " V"] | None],
    temperature: float = 1.0,
    kind: Divergence = REVERSE,
    own_temperature: Float[Tensor, " S"] | None = None,
) -> Float[Tensor, " S"]:
    """T² · D(p, p') of next-token distributions over the whole vocabulary; float32, differentiable in p.

    Args:
        hidden: (S, E) the state that predicts each token.
        weight: (V, E) of the head.
        bias: (V,) of the head, if it has one.
        other: hidden states, weight and bias that p' is made of; constants.
        temperature: logits are divided by it.
        kind: D, such as `REVERSE`, KL(p ‖ p') in nats.
        own_temperature: T, by which the logits of both are divided once more; a constant. None is 1 on every token.
    """
    found: Tensor = _Divergences.apply(hidden, weight, bias, other, temperature, kind, own_temperature)
    return found


def nucleus_mask(share: Float[Tensor, "S V"], mass: float) -> Bool[Tensor, "S V"]:
    """The most probable tokens whose probabilities sum to less than `mass`, as in `qredit.penalties.nucleus`."""
    ordered, order = share.sort(1, descending=True)
    inside = nucleus.in_nucleus(ordered, mass)
    return torch.zeros_like(inside).scatter_(1, order, inside)


def tokens_per_chunk(vocabulary: int, device: torch.device) -> int:
    """How many tokens' logits are made together, in two buffers."""
    return max(MAX_LOGITS.get(device.type, MAX_LOGITS["cuda"]) // vocabulary, MIN_TOKENS)


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
        head = _Head(weight, bias, temperature)
        logp, lse = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(2))
        entropy = hidden.new_empty(len(hidden), 1 + len(nuclei), dtype=torch.float32)
        for part in head.parts(len(hidden)):
            scores = head.scores(hidden[part])
            highest = scores.amax(1, keepdim=True)
            own = scores.gather(1, target[part, None])[:, 0]
            share = head.exp(scores.sub_(highest))
            total = share.sum(1)
            lse[part] = total.log() + highest[:, 0]
            logp[part] = own - lse[part]
            entropy[part, 0] = total.log() - torch.linalg.vecdot(share, scores) / total
            for column, mass in enumerate(nuclei, start=1):
                log_share = _within(scores, nucleus_mask(share / total[:, None], mass))
                entropy[part, column] = -torch.linalg.vecdot(log_share.exp(), log_share.clamp(min=-1e30))
        ctx.save_for_backward(hidden, weight, bias, target, lse, entropy)
        ctx.temperature, ctx.nuclei = temperature, nuclei
        return logp, entropy

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_logp: Tensor, grad_entropy: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, bias, target, lse, entropy = ctx.saved_tensors
        head = _Head(weight, bias, ctx.temperature)
        wanted = ctx.needs_input_grad
        slope_hidden = torch.empty_like(hidden) if wanted[0] else None
        slope_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        slope_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        columns = grad_entropy.any(0).nonzero()[:, 0].tolist()
        for part in head.parts(len(hidden)):
            log_share = head.scores(hidden[part]).sub_(lse[part, None])
            slope = head.exp(log_share)
            parts = [
                grad_entropy[part, column, None]
                * _entropy_slope(
                    log_share if column == 0 else _within(log_share, nucleus_mask(slope, ctx.nuclei[column - 1])),
                    entropy[part, column, None],
                )
                for column in columns
            ]
            slope.mul_(-grad_logp[part, None])
            slope.scatter_add_(1, target[part, None], grad_logp[part, None])
            for of_entropy in parts:
                slope -= of_entropy
            if ctx.temperature != 1.0:
                slope /= ctx.temperature
            if slope_hidden is not None:
                slope_hidden[part] = slope @ weight.float()
            if slope_weight is not None:
                slope_weight.addmm_(slope.T, hidden[part].float())
            if slope_bias is not None:
                slope_bias += slope.sum(0)
        return (
            slope_hidden,
            None if slope_weight is None else slope_weight.to(weight.dtype),
            slope_bias,
            None,
            None,
            None,
        )


class _Divergences(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        other: tuple[Tensor, Tensor, Tensor | None],
        temperature: float,
        kind: Divergence,
        own_temperature: Tensor | None,
    ) -> Tensor:
        pair = _Pair(_Head(weight, bias, temperature), _Head(other[1], other[2], temperature), own_temperature)
        found = hidden.new_empty(len(hidden), dtype=torch.float32)
        for part in pair.parts(len(hidden)):
            found[part] = kind.value(*pair.log_shares(hidden, other[0], part)) * pair.at(part).square()
        ctx.save_for_backward(hidden, weight, bias, *other, own_temperature)
        ctx.temperature, ctx.kind = temperature, kind
        return found

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None, None, None, None]:
        hidden, weight, bias, states, other_weight, other_bias, own_temperature = ctx.saved_tensors
        own, other = (_Head(*of, ctx.temperature) for of in ((weight, bias), (other_weight, other_bias)))
        pair = _Pair(own, other, own_temperature)
        slope_hidden, slope_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        slope_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for part in pair.parts(len(hidden)):
            slope = ctx.kind.slope(*pair.log_shares(hidden, states, part))
            slope *= (grad[part] * pair.at(part) / ctx.temperature)[:, None]  # T² of the value, 1/T of the logits
            slope_hidden[part] = (slope @ weight.float()).to(hidden.dtype)
            slope_weight.addmm_(slope.T, hidden[part].float())
            if slope_bias is not None:
                slope_bias += slope.sum(0)
        return slope_hidden, slope_weight.to(weight.dtype), slope_bias, None, None, None, None


class _Head:
    """Logits of a few tokens at a time, in two buffers that every part writes anew: they stay in the cache."""

    def __init__(self, weight: Float[Tensor, "V E"], bias: Float[Tensor, " V"] | None, temperature: float) -> None:
        self.weight, self.bias, self.temperature = weight.float(), bias, temperature
        self.most = tokens_per_chunk(len(weight), weight.device)
        self._buffers: list[Tensor] = []

    def parts(self, tokens: int) -> list[slice]:
        rows = min(self.most, tokens)
        self._buffers = [self.weight.new_empty(rows, len(self.weight)) for _ in range(2)]
        return [slice(start, min(start + rows, tokens)) for start in range(0, tokens, max(rows, 1))]

    def scores(self, hidden: Float[Tensor, "S E"]) -> Float[Tensor, "S V"]:
        found = torch.mm(hidden.float(), self.weight.T, out=self._buffers[0][: len(hidden)])
        if self.bias is not None:
            found += self.bias.float()
        return found if self.temperature == 1.0 else found.div_(self.temperature)

    def exp(self, scores: Float[Tensor, "S V"]) -> Float[Tensor, "S V"]:
        return torch.exp(scores, out=self._buffers[1][: len(scores)])


class _Pair:
    """Two heads that are asked about the same tokens, a part at a time."""

    def __init__(self, own: _Head, other: _Head, own_temperature: Float[Tensor, " S"] | None) -> None:
        self.heads, self.own_temperature = (own, other), own_temperature

    def parts(self, tokens: int) -> list[slice]:
        self.heads[1].parts(tokens)
        return self.heads[0].parts(tokens)

    def at(self, part: slice) -> Float[Tensor, " N"]:
        """The temperature of each token of a part."""
        if self.own_temperature is None:
            return self.heads[0].weight.new_ones(()).expand(part.stop - part.start)
        return self.own_temperature[part]

    def log_shares(
        self, hidden: Float[Tensor, "S E"], states: Float[Tensor, "S F"], part: slice
    ) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V"]]:
        """log p and log p' of a part's tokens."""
        scores = [head.scores(of[part]) for head, of in zip(self.heads, (hidden, states), strict=True)]
        if self.own_temperature is not None:
            scores = [each.div_(self.own_temperature[part, None]) for each in scores]
        return scores[0].log_softmax(1), scores[1].log_softmax(1)


def _within(scores: Float[Tensor, "S V"], inside: Bool[Tensor, "S V"]) -> Float[Tensor, "S V"]:
    """log-probabilities of the softmax over these tokens alone, -inf outside; all -inf where there are none."""
    kept = torch.where(inside, scores, -torch.inf)
    return torch.where(inside, kept - kept.logsumexp(1, keepdim=True), -torch.inf)


def _entropy_slope(log_share: Float[Tensor, "S V"], entropy: Float[Tensor, "S 1"]) -> Float[Tensor, "S V"]:
    """-∂H/∂s = p·(log p + H); 0 where p is."""
    return log_share.exp() * (log_share.clamp(min=-1e30) + entropy)
