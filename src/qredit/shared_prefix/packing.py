"""From padded rows to a layout of the forward pass."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from qredit.rollouts.collate import Rows
from qredit.shared_prefix.layout import CachedPrompts, PackedContinuations, PackedGroup, PackedRows, PaddedRows
from qredit.utils.errors import QreditError


def pack(rows: Rows) -> PackedRows:
    """The packing of whole or partial groups; rows of one group may stand anywhere.

    Raises:
        QreditError: rows of one group have different prompts.
    """
    return PackedRows(**_packed(rows, skip_prompts=False))


def pack_prompts(rows: Rows) -> CachedPrompts:
    """The prompt of each group.

    Raises:
        QreditError: rows of one group have different prompts.
    """
    members = _members(rows)
    prompts = [_shared_prompt(rows, group, numbers) for group, numbers in members.items()]
    starts = accumulate(map(len, prompts), initial=0)
    return CachedPrompts(
        ids=torch.cat(prompts)[None],
        positions=torch.cat([torch.arange(len(prompt)) for prompt in prompts])[None].to(rows.prompt_ids.device),
        groups=tuple(PackedGroup(start, len(prompt), ()) for start, prompt in zip(starts, prompts, strict=False)),
        place={group: place for place, group in enumerate(members)},
    )


def pack_continuations(prompts: CachedPrompts, rows: Rows) -> PackedContinuations:
    """The packing of some or all rows of the groups whose prompts these are."""
    members = tuple(prompts.place[group] for group in _members(rows))
    return PackedContinuations(**_packed(rows, skip_prompts=True), prompts=prompts, members=members)


def _packed(rows: Rows, skip_prompts: bool) -> dict[str, Any]:
    """What a packing holds; of prompts that are skipped the last token alone."""
    ids, mask = rows.batch.ids, rows.batch.mask
    assert ids is not None
    lengths = mask.sum(1).tolist()
    parts: list[Tensor] = []
    positions: list[Tensor] = []
    groups: list[PackedGroup] = []
    scored: list[tuple[Tensor, int, int]] = []
    for group, numbers in _members(rows).items():
        prompt = _shared_prompt(rows, group, numbers)
        skipped = len(prompt) - 1 if skip_prompts else 0
        start = groups[-1].end if groups else 0
        # A token's state predicts the next one, so the last token of a completion is never run.
        packed = PackedGroup(start, len(prompt) - skipped, tuple(max(lengths[row] - 1, 0) for row in numbers))
        groups.append(packed)
        parts += [prompt[skipped:], *(ids[row, : max(lengths[row] - 1, 0)] for row in numbers)]
        positions += [
            torch.arange(skipped, len(prompt)),
            *(len(prompt) + torch.arange(n) for n in packed.completions),
        ]
        scored += _predictors(packed, numbers, lengths)
    device = ids.device
    rows_of = torch.cat([torch.full((length,), number) for _, number, length in scored]).to(device)
    columns = torch.cat([torch.arange(length) for _, _, length in scored]).to(device)
    return {
        "ids": torch.cat(parts)[None],
        "positions": torch.cat(positions)[None].to(device),
        "groups": tuple(groups),
        "predictor": torch.cat([places for places, _, _ in scored]).to(device),
        "target": ids[rows_of, columns],
        "row": rows_of,
        "column": columns,
        "shape": (mask.shape[0], mask.shape[1]),
    }


def pad_rows(rows: Rows) -> PaddedRows:
    """The layout in which nothing is shared."""
    ids, mask = rows.batch.ids, rows.batch.mask
    assert ids is not None
    row, column = mask.nonzero(as_tuple=True)
    prompt, width = rows.prompt_ids.shape[1], ids.shape[1]
    return PaddedRows(
        ids=torch.cat([rows.prompt_ids, ids], 1),
        mask=torch.cat([rows.prompt_mask, mask.long()], 1),
        predictor=row * (prompt + width) + prompt + column - 1,
        target=ids[row, column],
        row=row,
        column=column,
        shape=(len(ids), width),
    )


def _members(rows: Rows) -> dict[int, list[int]]:
    """The rows of each group, by its number."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(rows.batch.group.tolist()):
        members.setdefault(group, []).append(row)
    return members


def _shared_prompt(rows: Rows, group: int, numbers: Sequence[int]) -> Int[Tensor, " P"]:
    prompts, present = rows.prompt_ids[list(numbers)], rows.prompt_mask[list(numbers)].bool()
    if bool((present != present[0]).any()) or bool((prompts != prompts[0])[present].any()):
        raise QreditError(f"group {group} holds rows of different prompts; a group is the rollouts of one prompt")
    return prompts[0][present[0]]


def _predictors(
    group: PackedGroup, numbers: Sequence[int], lengths: Sequence[int]
) -> Iterator[tuple[Int[Tensor, " C"], int, int]]:
    """For each row its tokens' predictors, its number and its length."""
    # The first token of every row is predicted by the last one of the prompt that they share.
    place, last = group.start + group.prompt, group.start + group.prompt - 1
    for row, stands in zip(numbers, group.completions, strict=True):
        places = torch.arange(place, place + stands)
        yield torch.cat([torch.tensor([last]), places])[: lengths[row]], row, lengths[row]
        place += stands
