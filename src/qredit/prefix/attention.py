"""Attention over a packing: prompt tokens see their prompt, completion tokens their prompt and their own completion.

Registered with transformers under `NAME`; without a packing in the forward call it is its SDPA attention.

    out_c = softmax([q_c·K_prompt, q_c·K_own]) · [V_prompt, V_own]

in two parts whose log-normalisers are known, so that neither the (C, P + C) scores nor a copy of the prompt's keys for
every rollout is ever held: with lse = log(e^{lse_prompt} + e^{lse_own}),

    out = out_own + σ(lse_prompt - lse_own)·(out_prompt - out_own).

The backward pass of each part is the flash backward with the whole's output and normaliser in place of its own, which
is exact because the gradient of a score needs nothing else of the other part (arXiv 2307.08691, section 3.1.2).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from qredit.prefix.decode import Decoding
from qredit.prefix.layout import PackedGroup, Packing
from qredit.prefix.support import NAME

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
    shared_prefix: Packing | None = None,
    decoding: Decoding | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 N H D"], None]:
    """transformers' attention interface; `shared_prefix` and `decoding` come from the forward call."""
    if shared_prefix is None and decoding is None:
        ordinary: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return ordinary
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast rotary positions leave them in float32
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if shared_prefix is None:
        assert decoding is not None
        return decoding.attend(layer, query, key, value, scale).transpose(1, 2), None
    if decoding is not None:
        decoding.keep_prompts(layer, key, value)
    attend = attend_in_two_parts if query.device.type == "cpu" else attend_to_copies
    repeats = query.shape[1] // key.shape[1]
    out = attend(query, repeat_kv(key, repeats), repeat_kv(value, repeats), shared_prefix.groups, scale)
    return out.transpose(1, 2).contiguous(), None


def attend_to_copies(
    query: Float[Tensor, "1 H N D"],
    key: Float[Tensor, "1 H N D"],
    value: Float[Tensor, "1 H N D"],
    groups: Sequence[PackedGroup],
    scale: float,
) -> Float[Tensor, "1 H N D"]:
    """The same by SDPA on any device: each completion beside a copy of its prompt's keys and values."""
    parts = []
    for group in groups:
        q, k, v = (tensor[:, :, group.start : group.end] for tensor in (query, key, value))
        prompt = [tensor[:, :, : group.prompt] for tensor in (q, k, v)]
        parts.append(
            nn.functional.scaled_dot_product_attention(prompt[0], prompt[1], prompt[2], is_causal=True, scale=scale)
        )
        if sum(group.completions) == 0:
            continue
        own = [_rows_of(tensor[:, :, group.prompt :], group.completions) for tensor in (q, k, v)]
        rows, width = own[0].shape[0], own[0].shape[2]
        keys, values = (
            torch.cat([shared.expand(rows, -1, -1, -1), mine], 2)
            for shared, mine in zip(prompt[1:], own[1:], strict=True)
        )
        sees = torch.ones(width, group.prompt + width, dtype=torch.bool, device=q.device).tril(group.prompt)
        out = nn.functional.scaled_dot_product_attention(own[0], keys, values, attn_mask=sees, scale=scale)
        parts += [row[None, :, :length] for row, length in zip(out, group.completions, strict=True)]
    return torch.cat(parts, 2)


def attend_in_two_parts(
    query: Float[Tensor, "1 H N D"],
    key: Float[Tensor, "1 H N D"],
    value: Float[Tensor, "1 H N D"],
    groups: Sequence[PackedGroup],
    scale: float,
) -> Float[Tensor, "1 H N D"]:
    """Without a copy of the prompt's keys, by PyTorch's flash kernel for CPUs."""
    out: Tensor = _TwoParts.apply(query, key, value, tuple(groups), scale)
    return out


class _TwoParts(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, groups: tuple[PackedGroup, ...], scale: float
    ) -> Tensor:
        out, lse = torch.empty_like(query), query.new_empty(query.shape[:3], dtype=torch.float32)
        for group in groups:
            shared, own = group.shared, group.own
            prompt = [tensor[:, :, shared] for tensor in (query, key, value)]
            out[:, :, shared], lse[:, :, shared] = _flash(*prompt, 0.0, True, scale=scale)
            if own.stop > own.start:
                q, k, v = (tensor[:, :, own] for tensor in (query, key, value))
                of_prompt, lse_prompt = _flash(q, prompt[1], prompt[2], 0.0, False, scale=scale)
                rows = [_rows_of(tensor, group.completions) for tensor in (q, k, v)]
                for line, part in zip((out, lse), _flash(*rows, 0.0, True, scale=scale), strict=True):
                    _put_in_line(line[:, :, own], part, group.completions)
                lse_own = lse[:, :, own]
                out[:, :, own].lerp_(of_prompt, (lse_prompt - lse_own).sigmoid()[..., None].to(out.dtype))
                torch.logaddexp(lse_prompt, lse_own, out=lse_own)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.groups, ctx.scale = groups, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[override]
        query, key, value, out, lse = ctx.saved_tensors
        slopes = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for group in ctx.groups:
            shared, own = group.shared, group.own
            k, v = key[:, :, shared], value[:, :, shared]
            here = [tensor[:, :, shared] for tensor in (grad, query, out, lse)]
            of_prompt = _slopes(here, k, v, True, ctx.scale)
            for slope, part in zip(slopes, of_prompt, strict=True):
                slope[:, :, shared] = part
            if own.stop > own.start:
                here = [tensor[:, :, own] for tensor in (grad, query, out, lse)]
                by_prompt = _slopes(here, k, v, False, ctx.scale)
                _own_slopes(slopes, here, key[:, :, own], value[:, :, own], own, group.completions, ctx.scale)
                slopes[0][:, :, own] += by_prompt[0]
                slopes[1][:, :, shared] += by_prompt[1]
                slopes[2][:, :, shared] += by_prompt[2]
        return *slopes, None, None


def _slopes(
    here: Sequence[Tensor], key: Tensor, value: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """∂/∂(query, key, value) of a part whose queries' whole output and normaliser are given."""
    grad, query, out, lse = here
    slopes: tuple[Tensor, Tensor, Tensor] = _flash_backward(grad, query, key, value, out, lse, 0.0, causal, scale=scale)
    return slopes


def _own_slopes(
    slopes: Sequence[Tensor],
    here: Sequence[Tensor],
    key: Tensor,
    value: Tensor,
    own: slice,
    lengths: Sequence[int],
    scale: float,
) -> None:
    """Put in its place what flows to the completions through their own tokens."""
    grad, query, out, lse = here
    wide = [*(_rows_of(tensor, lengths) for tensor in (grad, query, out)), _rows_of(lse, lengths, _NOWHERE)]
    found = _slopes(wide, _rows_of(key, lengths), _rows_of(value, lengths), True, scale)
    for line, part in zip(slopes, found, strict=True):
        _put_in_line(line[:, :, own], part, lengths)


def _rows_of(line: Float[Tensor, "1 H N *D"], lengths: Sequence[int], fill: float = 0.0) -> Float[Tensor, "M H C *D"]:
    """Completions in a line → one row each, padded to the right; a view where all are equally long."""
    width = max(lengths)
    if all(length == width for length in lengths):
        rows: Tensor = line[0].unflatten(1, (len(lengths), width)).transpose(0, 1)
        return rows
    parts = [part.transpose(0, 1) for part in line[0].split(list(lengths), 1)]
    return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill).transpose(1, 2)


def _put_in_line(line: Float[Tensor, "1 H N *D"], rows: Float[Tensor, "M H C *D"], lengths: Sequence[int]) -> None:
    """The inverse of `_rows_of`, into a line that is there."""
    if len(set(lengths)) == 1:
        _rows_of(line, lengths).copy_(rows)
        return
    for part, row, length in zip(line[0].split(list(lengths), 1), rows, lengths, strict=True):
        part.copy_(row[:, :length])


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
