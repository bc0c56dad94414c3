"""From padded rows to a layout of the forward pass."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from qredit.errors import QreditError
from qredit.prefix.layout import PackedGroup, Packing, Repeated
from qredit.rollout.collate import Rows


def pack(rows: Rows) -> Packing:
    """The packing of whole or partial groups; rows of one group may stand anywhere.

    Raises:
        QreditError: rows of one group have different prompts.
    """
    ids, mask = rows.batch.ids, rows.batch.mask
    assert ids is not None
    lengths = mask.sum(1).tolist()
    members: dict[int, list[int]] = {}
    for row, group in enumerate(rows.batch.group.tolist()):
        members.setdefault(group, []).append(row)
    parts: list[Tensor] = []
    positions: list[Tensor] = []
    groups: list[PackedGroup] = []
    scored: list[tuple[Tensor, int, int]] = []
    for group, numbers in members.items():
        prompt = _shared_prompt(rows, group, numbers)
        start = groups[-1].end if groups else 0
        packed = PackedGroup(start, len(prompt), tuple(max(lengths[row] - 1, 0) for row in numbers))
        groups.append(packed)
        parts += [prompt, *(ids[row, : max(lengths[row] - 1, 0)] for row in numbers)]
        positions += [torch.arange(len(prompt)), *(len(prompt) + torch.arange(n) for n in packed.completions)]
        scored += _predictors(packed, numbers, lengths)
    device = ids.device
    rows_of = torch.cat([torch.full((length,), number) for _, number, length in scored]).to(device)
    columns = torch.cat([torch.arange(length) for _, _, length in scored]).to(device)
    return Packing(
        ids=torch.cat(parts)[None],
        positions=torch.cat(positions)[None].to(device),
        groups=tuple(groups),
        predictor=torch.cat([places for places, _, _ in scored]).to(device),
        target=ids[rows_of, columns],
        row=rows_of,
        column=columns,
        shape=(mask.shape[0], mask.shape[1]),
    )


def repeat(rows: Rows) -> Repeated:
    """The layout in which nothing is shared."""
    ids, mask = rows.batch.ids, rows.batch.mask
    assert ids is not None
    row, column = mask.nonzero(as_tuple=True)
    prompt, width = rows.prompt_ids.shape[1], ids.shape[1]
    return Repeated(
        ids=torch.cat([rows.prompt_ids, ids], 1),
        mask=torch.cat([rows.prompt_mask, mask.long()], 1),
        predictor=row * (prompt + width) + prompt + column - 1,
        target=ids[row, column],
        row=row,
        column=column,
        shape=(len(ids), width),
    )


def _shared_prompt(rows: Rows, group: int, numbers: Sequence[int]) -> Int[Tensor, " P"]:
    prompts, present = rows.prompt_ids[list(numbers)], rows.prompt_mask[list(numbers)].bool()
    if bool((present != present[0]).any()) or bool((prompts != prompts[0])[present].any()):
        raise QreditError(f"group {group} holds rows of different prompts; a group is the rollouts of one prompt")
    return prompts[0][present[0]]


def _predictors(
    group: PackedGroup, numbers: Sequence[int], lengths: Sequence[int]
) -> Iterator[tuple[Int[Tensor, " C"], int, int]]:
    """For each row its tokens' predictors, its number and its length."""
    place, last = group.start + group.prompt, group.start + group.prompt - 1
    for row, stands in zip(numbers, group.completions, strict=True):
        places = torch.arange(place, place + stands)
        yield torch.cat([torch.tensor([last]), places])[: lengths[row]], row, lengths[row]
        place += stands
