"""Decoding with the prompt's keys held once per group, and rows that have ended left out.

Prefill runs each distinct prompt once. A decoding step sees one token per row; its query attends to its prompt's keys,
which all rows of the prompt share, and to the row's own keys:

    out = softmax([q·K_prompt, q·K_own]) · [V_prompt, V_own]

The keys live here and not in transformers' cache, which would hold the prompt's once for every row and copy all of them
at every token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from qredit.shared_prefix.layout import PackedGroup, PackedRows
from qredit.shared_prefix.support import unwrap_peft


@dataclass(eq=False)
class LayerCache:
    """Keys and values of one layer: of every prompt (1, K, P, D), and of every row's own tokens (B, K, C, D)."""

    prompts: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    own: tuple[Tensor, Tensor] | None = None


@dataclass(eq=False)
class DecodingCache:
    """The keys of all layers while rows are decoded together.

    Attributes:
        groups: where each distinct prompt stands in the prefill's packing.
        members: per distinct prompt, the number of rows that decode from it; rows stand in the prompts' order.
        capacity: tokens that a row may come to hold.
        length: tokens that every row holds now.
    """

    groups: tuple[PackedGroup, ...]
    members: list[int]
    capacity: int
    length: int = 0
    layers: dict[int, LayerCache] = field(default_factory=dict)

    def cache_prompts(self, layer: int, key: Float[Tensor, "1 K N D"], value: Float[Tensor, "1 K N D"]) -> None:
        """Remember the keys of the prefill.

        Args:
            layer: number of the layer.
            key: (1, K, N, D), K heads of keys.
            value: (1, K, N, D).

        Raises:
            RuntimeError: they are there already.
        """
        if layer in self.layers:
            raise RuntimeError(f"layer {layer} attends more than once")
        parts = [(key[:, :, group.shared].detach(), value[:, :, group.shared].detach()) for group in self.groups]
        self.layers[layer] = LayerCache(parts)

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B H 1 D"],
        key: Float[Tensor, "B K 1 D"],
        value: Float[Tensor, "B K 1 D"],
        scale: float,
    ) -> Float[Tensor, "B H 1 D"]:
        """Add each row's newest key and value, and attend.

        Args:
            layer: number of the layer.
            query: (B, H, 1, D) of each row's newest token.
            key: (B, K, 1, D) of the same.
            value: (B, K, 1, D) of the same.
            scale: what dot products are multiplied by.
        """
        held = self.layers[layer]
        if held.own is None:
            # One buffer for all tokens to come: to append to a tensor would copy it at every token.
            shape = (key.shape[0], key.shape[1], self.capacity, key.shape[3])
            held.own = key.new_empty(shape), value.new_empty(shape)
        for mine, newest in zip(held.own, (key, value), strict=True):
            mine[:, :, self.length] = newest[:, :, 0]
        query = query.unflatten(1, (key.shape[1], -1))[:, :, :, 0]  # (B, K, queries per key, D)
        own_keys, own_values = (mine[:, :, : self.length + 1] for mine in held.own)
        own = torch.matmul(query, own_keys.transpose(2, 3)) * scale
        # Rows of one prompt are neighbours (`Decoder.rows`), so a slice has them and nothing is gathered.
        outs, start = [], 0
        for (keys, values), count in zip(held.prompts, self.members, strict=True):
            rows = slice(start, start + count)
            if count:
                outs.append(_attend_to_both(query[rows], keys, values, own[rows], own_values[rows], scale))
            start += count
        return torch.cat(outs).flatten(1, 2)[:, :, None]

    def keep_rows(self, stay: Int[Tensor, " S"]) -> None:
        """Keep these rows alone."""
        ends = torch.tensor(self.members).cumsum(0)
        self.members = torch.bincount(torch.searchsorted(ends, stay.cpu(), right=True), minlength=len(ends)).tolist()
        for held in self.layers.values():
            if held.own is not None:
                held.own = held.own[0][stay], held.own[1][stay]


def _attend_to_both(
    query: Float[Tensor, "M K R D"],
    keys: Float[Tensor, "1 K P D"],
    values: Float[Tensor, "1 K P D"],
    own: Float[Tensor, "M K R C"],
    own_values: Float[Tensor, "M K C D"],
    scale: float,
) -> Float[Tensor, "M K R D"]:
    """Rows of one prompt; the prompt's part is one product for all of them."""
    rows, heads, repeats, width = query.shape
    # All queries of the prompt's rows in one product: its keys are read once, not once for each row.
    together = query.transpose(0, 1).reshape(heads, rows * repeats, width)
    shared = torch.matmul(together, keys[0].transpose(1, 2)) * scale  # (K, M·R, P)
    mine = own.transpose(0, 1).reshape(heads, rows * repeats, -1)
    weights = torch.cat([shared, mine], 2).softmax(2, dtype=torch.float32).to(query.dtype)
    of_prompt = torch.matmul(weights[:, :, : shared.shape[2]], values[0])
    of_prompt = of_prompt.view(heads, rows, repeats, width).transpose(0, 1)
    mine = weights[:, :, shared.shape[2] :].reshape(heads, rows, repeats, -1).transpose(0, 1)
    return of_prompt + torch.matmul(mine, own_values)


class Decoder:
    """A model that decodes rows of shared prompts, token by token.

    Args:
        model: one that `share_prefix` prepared, unwrapped, in evaluation mode.
        prompts: ids of each row's prompt; rows of equal prompts share one prefill.
        capacity: tokens that a row may come to hold.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        self.model, self.device = model, model.device
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        number = {prompt: place for place, prompt in enumerate(distinct)}
        belongs = torch.tensor([number[tuple(prompt)] for prompt in prompts])
        self.rows = torch.argsort(belongs, stable=True).to(self.device)  # numbers of the rows that are left, in order
        self.starts = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        self.packing = _pack_prompts(distinct, self.device)
        self.keys = DecodingCache(
            self.packing.groups, torch.bincount(belongs, minlength=len(distinct)).tolist(), capacity
        )
        self._first = belongs.to(self.device)[self.rows]

    def prefill(self) -> Float[Tensor, "B V"]:
        """Logits of every row's first token, in the order of `rows`."""
        scores: Tensor = self.model(layout=self.packing, decoding=self.keys)
        return scores[self._first]

    def step(self, tokens: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Logits after one more token of each row that is left, given and returned in the order of `rows`."""
        positions = self.starts[self.rows] + self.keys.length
        scores: Tensor = self.model(input_ids=tokens[:, None], position_ids=positions[:, None], decoding=self.keys)
        self.keys.length += 1
        return scores

    def keep_rows(self, stay: Int[Tensor, " S"]) -> None:
        """Keep only these of the rows that are left, by their place in `rows`."""
        self.rows = self.rows[stay]
        self.keys.keep_rows(stay)


def _pack_prompts(prompts: Sequence[Sequence[int]], device: torch.device) -> PackedRows:
    """Distinct prompts in one sequence; what is to be predicted is the token after each."""
    ends = torch.tensor([len(prompt) for prompt in prompts]).cumsum(0)
    groups = tuple(
        PackedGroup(int(end) - len(prompt), len(prompt), ()) for prompt, end in zip(prompts, ends, strict=True)
    )
    nothing = torch.zeros(0, dtype=torch.long, device=device)
    return PackedRows(
        ids=torch.tensor([token for prompt in prompts for token in prompt], device=device)[None],
        positions=torch.cat([torch.arange(len(prompt)) for prompt in prompts]).to(device)[None],
        groups=groups,
        predictor=(ends - 1).to(device),
        target=nothing,
        row=nothing,
        column=nothing,
        shape=(len(prompts), 0),
    )


def has_shared_prefix(model: PreTrainedModel) -> bool:
    """Whether `share_prefix` prepared this model, or the one inside its adapters."""
    return getattr(unwrap_peft(model), "why_not_shared", "it was not prepared") is None
