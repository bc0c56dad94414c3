"""Attention over a packing: prompt tokens see their prompt, completion tokens their prompt and their own completion.

Of a completion with several right answers, each answer sees what stands before all of them, and itself.

Registered with transformers under `ATTENTION_NAME`; without a packing in the forward call it is its SDPA attention.

    out_c = softmax([q_c·K_prompt, q_c·K_own]) · [V_prompt, V_own]

on a CPU in two parts whose log-normalisers are known, so that neither the (C, P + C) scores nor a copy of the prompt's
keys for every rollout is ever held: with lse = log(e^{lse_prompt} + e^{lse_own}),

    out = out_own + σ(lse_prompt - lse_own)·(out_prompt - out_own).

Elsewhere each completion has a copy of its prompt's keys beside its own.

Prompts may also be computed alone, their keys and values kept on the graph, and completions go on from them later.

The backward pass of each part is the flash backward with the whole's output and normaliser in place of its own, which
is exact because the gradient of a score needs nothing else of the other part (arXiv 2307.08691, section 3.1.2).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from qredit.shared_prefix.decode import DecodingCache
from qredit.shared_prefix.layout import KeyRecorder, PackedContinuations, PackedGroup, PackedRows
from qredit.shared_prefix.support import ATTENTION_NAME

_attend = nn.functional.scaled_dot_product_attention
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_NOWHERE = 1e30  # a normaliser so large that a padded query's weights are exactly 0


def shared_prefix_attention(
    module: nn.Module,
    query: Float[Tensor, "1 H N D"],
    key: Float[Tensor, "1 K N D"],
    value: Float[Tensor, "1 K N D"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared_prefix: PackedRows | KeyRecorder | PackedContinuations | None = None,
    decoding: DecodingCache | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 N H D"], None]:
    """transformers' attention interface; `shared_prefix` and `decoding` come from the forward call.

    Args:
        module: the attention layer.
        query: (1, H, N, D) of all tokens of the pass in a line, prompts and completions, H heads.
        key: (1, K, N, D), K heads of keys.
        value: (1, K, N, D).
        attention_mask: read by nothing: the layout says who sees whom.
        scaling: what dot products are multiplied by.
        shared_prefix: how the tokens of this pass lie.
        decoding: keys and values of earlier tokens, where a token is sampled.
    """
    if shared_prefix is None and decoding is None:
        ordinary: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return ordinary
    # `patch_forward` hands in a mask of one number. Any other is the model's own, and would have hidden some tokens.
    if attention_mask is None or attention_mask.numel() != 1:
        raise RuntimeError("the model made an attention mask of its own")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast rotary positions leave them in float32
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if shared_prefix is None:
        assert decoding is not None
        return decoding.attend(layer, query, key, value, scale).transpose(1, 2), None
    if decoding is not None:
        decoding.cache_prompts(layer, key, value)
    if isinstance(shared_prefix, KeyRecorder):
        shared_prefix.keep(layer, key, value)
    kept = shared_prefix.prompt_keys(layer) if isinstance(shared_prefix, PackedContinuations) else None
    parts = _of_groups((query, key, value), kept, shared_prefix.groups, scale)
    return torch.cat([part.transpose(1, 2) for part in parts], 1), None


def _of_groups(
    line: Sequence[Float[Tensor, "1 #H N D"]],
    kept: Sequence[Sequence[Float[Tensor, "1 K P D"]]] | None,
    groups: Sequence[PackedGroup],
    scale: float,
) -> list[Float[Tensor, "1 H n D"]]:
    """The outputs of each group's prompt and of its completions, by query, key and value of the whole sequence.

    Where the prompts' keys and values are `kept` from before, of a prompt only its last token stands in the sequence,
    which sees all of them.
    """
    attend = attend_in_two_parts if line[0].device.type == "cpu" else attend_to_copies
    sizes = [size for group in groups for size in (group.prompt, sum(group.completions))]
    pieces = list(zip(*(tensor.split(sizes, 2) for tensor in line), strict=True))
    parts = []
    for place, (group, prompt, own) in enumerate(zip(groups, pieces[::2], pieces[1::2], strict=True)):
        key, value = prompt[1:] if kept is None else kept[place]
        shares = key.shape[1] != prompt[0].shape[1]
        # Of a kept prompt the last token alone is a query. It sees all keys, so nothing is causal there.
        parts.append(_attend(prompt[0], key, value, is_causal=kept is None, scale=scale, enable_gqa=shares))
        if sum(group.completions):
            parts.append(attend(own[0], own[1], own[2], key, value, group.completions, scale, group.visible))
    return parts


def attend_to_copies(
    query: Float[Tensor, "1 H N D"],
    key: Float[Tensor, "1 K N D"],
    value: Float[Tensor, "1 K N D"],
    prompt_key: Float[Tensor, "1 K P D"],
    prompt_value: Float[Tensor, "1 K P D"],
    lengths: Sequence[int],
    scale: float,
    visible: Bool[Tensor, "M W S"] | None = None,
) -> Float[Tensor, "1 H N D"]:
    """Completions in a line by SDPA on any device: each beside a copy of its prompt's keys and values.

    Args:
        query: (1, H, N, D) of all completion tokens in a line, H heads.
        key: (1, K, N, D), K heads of keys.
        value: (1, K, N, D).
        prompt_key: (1, K, P, D) of the one prompt.
        prompt_value: (1, K, P, D) of the prompt.
        lengths: tokens of each completion.
        scale: what dot products are multiplied by.
        visible: as in `PackedGroup`.
    """
    own = [_rows_of(tensor, lengths) for tensor in (query, key, value)]
    rows, width = own[0].shape[0], own[0].shape[2]
    repeats = query.shape[1] // key.shape[1]
    keys, values = (
        repeat_kv(torch.cat([shared.expand(rows, -1, -1, -1), mine], 2), repeats)
        for shared, mine in zip((prompt_key, prompt_value), own[1:], strict=True)
    )
    prompt = prompt_key.shape[2]
    # Each token sees the whole prompt, and its own completion up to itself. What is padded is cut off below.
    sees = torch.ones(width, prompt + width, dtype=torch.bool, device=query.device).tril(prompt)
    if visible is not None:
        sees = visible[:, None]  # made once for all layers, each of which keeps it for the backward pass
    out = _attend(own[0], keys, values, attn_mask=sees, scale=scale)
    return torch.cat([row[None, :, :length] for row, length in zip(out, lengths, strict=True)], 2)


def attend_in_two_parts(
    query: Float[Tensor, "1 H N D"],
    key: Float[Tensor, "1 K N D"],
    value: Float[Tensor, "1 K N D"],
    prompt_key: Float[Tensor, "1 K P D"],
    prompt_value: Float[Tensor, "1 K P D"],
    lengths: Sequence[int],
    scale: float,
    visible: Bool[Tensor, "M W S"] | None = None,
) -> Float[Tensor, "1 H N D"]:
    """The same without any copy of keys, by PyTorch's flash kernel for CPUs.

    Args:
        query: (1, H, N, D) of all completion tokens in a line, H heads.
        key: (1, K, N, D), K heads of keys.
        value: (1, K, N, D).
        prompt_key: (1, K, P, D) of the prompt.
        prompt_value: (1, K, P, D) of the prompt.
        lengths: tokens of each completion.
        scale: what dot products are multiplied by.
        visible: as in `PackedGroup`.
    """
    out: Tensor = _TwoParts.apply(query, key, value, prompt_key, prompt_value, tuple(lengths), scale, visible)
    return out


class _TwoParts(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prompt_key: Tensor,
        prompt_value: Tensor,
        lengths: tuple[int, ...],
        scale: float,
        visible: Tensor | None,
    ) -> Tensor:
        # All completions are queries of one call against the prompt: its keys are read once and never copied.
        of_prompt, lse_prompt = _flash(query, prompt_key, prompt_value, 0.0, False, scale=scale)
        rows = [_rows_of(tensor, lengths) for tensor in (query, key, value)]
        mask = _as_scores(visible, query, prompt_key.shape[2])
        own = _flash(*rows, 0.0, mask is None, attn_mask=mask, scale=scale)
        out, lse = (_in_line(part, lengths) for part in own)
        # The two softmaxes joined into one over both parts: each counts by its share of the sum of exponentials.
        out.lerp_(of_prompt, (lse_prompt - lse).sigmoid()[..., None].to(out.dtype))
        torch.logaddexp(lse_prompt, lse, out=lse)
        ctx.save_for_backward(query, key, value, prompt_key, prompt_value, out, lse)
        ctx.lengths, ctx.scale, ctx.visible = lengths, scale, visible
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, prompt_key, prompt_value, out, lse = ctx.saved_tensors
        lengths = ctx.lengths
        # With the whole's output and normaliser in place of its own, each part's kernel gives its share of the exact
        # gradient. Only the queries saw both parts, so only theirs are added.
        mask = _as_scores(ctx.visible, query, prompt_key.shape[2])
        by_prompt = _slopes((grad, query, out, lse), prompt_key, prompt_value, False, None, ctx.scale)
        wide = [*(_rows_of(tensor, lengths) for tensor in (grad, query, out)), _rows_of(lse, lengths, _NOWHERE)]
        by_own = _slopes(wide, _rows_of(key, lengths), _rows_of(value, lengths), mask is None, mask, ctx.scale)
        slopes = [_in_line(part, lengths) for part in by_own]
        slopes[0] += by_prompt[0]
        return *slopes, *by_prompt[1:], None, None, None


def _slopes(
    here: Sequence[Tensor], key: Tensor, value: Tensor, causal: bool, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """∂/∂(query, key, value) of a part whose queries' whole output and normaliser are given."""
    grad, query, out, lse = here
    slopes: tuple[Tensor, Tensor, Tensor] = _flash_backward(
        grad, query, key, value, out, lse, 0.0, causal, attn_mask=mask, scale=scale
    )
    return slopes


def _as_scores(visible: Bool[Tensor, "M W S"] | None, query: Tensor, prompt: int) -> Float[Tensor, "M 1 W W"] | None:
    """What is added to the scores within the completion: 0 where a token is seen, -inf elsewhere."""
    if visible is None:
        return None
    own = visible[:, None, :, prompt:]
    return torch.zeros(own.shape, dtype=query.dtype).masked_fill_(~own, -torch.inf)


def _rows_of(line: Float[Tensor, "1 H N *D"], lengths: Sequence[int], fill: float = 0.0) -> Float[Tensor, "M H C *D"]:
    """Completions in a line → one row each, padded to the right; a view where all are equally long."""
    width = max(lengths)
    if all(length == width for length in lengths):
        rows: Tensor = line[0].unflatten(1, (len(lengths), width)).transpose(0, 1)
        return rows
    parts = [part.transpose(0, 1) for part in line[0].split(list(lengths), 1)]
    return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill).transpose(1, 2)


def _in_line(rows: Float[Tensor, "M H C *D"], lengths: Sequence[int]) -> Float[Tensor, "1 H N *D"]:
    """The inverse of `_rows_of`; a view where all are equally long and lie as the line does."""
    if len(set(lengths)) == 1:
        line: Tensor = rows.transpose(0, 1).flatten(1, 2)
    else:
        line = torch.cat([row.transpose(0, 1)[:length] for row, length in zip(rows, lengths, strict=True)])
        line = line.transpose(0, 1)
    return line[None]


AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
