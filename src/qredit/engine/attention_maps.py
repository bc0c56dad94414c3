"""Attention maps of sampled rollouts, in a forward pass of their own, and the token roles they give."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.rollouts.collate import Rows
from qredit.shared_prefix.support import unwrap_peft
from qredit.stats import attention_roles
from qredit.utils.errors import QreditError

LOCALITY, INFLUENCE = "attention_locality", "attention_influence"
MAX_LAYERS = 5


@torch.no_grad()
def compute_token_roles(model: Any, rows: Rows, horizons: Sequence[int] = ()) -> dict[str, Float[Tensor, "B T"]]:
    """`attention_locality`, and `attention_influence@FAR` for each horizon, from the model's middle layers.

    Every row alone, prompt and completion without padding: maps of N × N numbers for each head of the layers used, and
    attention computed the slow way, which alone returns them. 0 on the tokens of aliases.

    Args:
        model: the policy.
        rows: prompts and completions, padded, (B, P) and (B, T).
        horizons: FAR of each `attention_influence@FAR`, in tokens.

    Raises:
        QreditError: the model returns no attention maps.
    """
    base = unwrap_peft(model)
    used = base.config._attn_implementation
    base.set_attn_implementation("eager")
    try:
        found = [_of_row(base, rows, row, horizons) for row in range(len(rows.batch.mask))]
    finally:
        base.set_attn_implementation(used)
    width = rows.batch.mask.shape[1]
    padded = [torch.nn.functional.pad(roles, (0, width - roles.shape[1])) for roles in found]
    names = [LOCALITY, *(f"{INFLUENCE}@{far}" for far in horizons)]
    return dict(zip(names, torch.stack(padded, 1), strict=True))


def parse_horizons(needs: Iterable[str]) -> list[int]:
    """The horizons that the names of batch fields ask for: how many tokens later an influence is still looked for."""
    return sorted(int(far) for kind, _, far in (name.partition("@") for name in needs) if kind == INFLUENCE)


def _of_row(base: Any, rows: Rows, row: int, horizons: Sequence[int]) -> Float[Tensor, "R N"]:
    assert rows.batch.ids is not None
    prompt = rows.prompt_ids[row][rows.prompt_mask[row].bool()]
    own = rows.batch.mask[row] if rows.batch.alias is None else rows.batch.mask[row] & (rows.batch.alias[row] == 0)
    completion = rows.batch.ids[row][own]
    told = base.base_model(
        input_ids=torch.cat([prompt, completion])[None], use_cache=False, output_attentions=True
    ).attentions
    if not told:
        raise QreditError("the model returns no attention maps; choose an objective that needs none")
    maps = torch.cat([told[layer][0].float() for layer in choose_middle_layers(len(told))])
    start = len(prompt)
    local, wide = attention_roles.average_local_and_global_heads(maps, start)
    roles = [attention_roles.locality(local), *(attention_roles.influence(wide, far=far) for far in horizons)]
    return torch.stack(roles)[:, start:]


def choose_middle_layers(count: int) -> list[int]:
    """Up to five layers, spread evenly over the middle third."""
    first, last = count // 3, max((2 * count - 1) // 3, count // 3)
    wanted = min(MAX_LAYERS, last - first + 1)
    return sorted({round(first + (last - first) * n / max(wanted - 1, 1)) for n in range(wanted)})
