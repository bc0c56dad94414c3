"""From padded rows to a layout of the forward pass."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from qredit.rollouts.collate import Rows
from qredit.shared_prefix.branches import Branches, find_branches, make_visibility, repeat_for_answers
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
    branches = find_branches(rows.batch, rows.forks)
    parts: list[Tensor] = []
    positions: list[Tensor] = []
    groups: list[PackedGroup] = []
    scored: list[tuple[Tensor, int, int]] = []
    for group, numbers in _members(rows).items():
        prompt = _shared_prompt(rows, group, numbers)
        skipped = len(prompt) - 1 if skip_prompts else 0
        start = groups[-1].end if groups else 0
        # A token's state predicts the next one, so the last token of a completion, or of an answer, is never run.
        members = [branches[row] for row in numbers]
        packed = PackedGroup(
            start,
            len(prompt) - skipped,
            tuple(sum(max(length - 1, 0) for length in row.lengths) for row in members),
            _to(ids.device, make_visibility(members, len(prompt))),
        )
        groups.append(packed)
        parts.append(prompt[skipped:])
        positions.append(torch.arange(skipped, len(prompt)))
        for row, made in zip(numbers, members, strict=True):
            parts += [ids[row, own.start : max(own.stop - 1, own.start)] for own in made.columns]
            positions += [len(prompt) + torch.arange(own.start, max(own.stop - 1, own.start)) for own in made.places]
        scored += _predictors(packed, numbers, members)
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
    """The layout in which nothing is shared: of several right answers each has a row, with a copy of the rationale."""
    assert rows.batch.ids is not None
    row, column = rows.batch.mask.nonzero(as_tuple=True)
    single, own_row, own_column = rows, row, column
    if rows.batch.alias is not None:
        single, place = repeat_for_answers(rows)
        own = place[row, column]
        width = single.batch.mask.shape[1]
        own_row, own_column = own // width, own % width
    ids, mask = single.batch.ids, single.batch.mask
    assert ids is not None
    prompt, width = single.prompt_ids.shape[1], ids.shape[1]
    return PaddedRows(
        ids=torch.cat([single.prompt_ids, ids], 1),
        mask=torch.cat([single.prompt_mask, mask.long()], 1),
        predictor=own_row * (prompt + width) + prompt + own_column - 1,
        target=rows.batch.ids[row, column],
        row=row,
        column=column,
        shape=(len(rows.batch.mask), rows.batch.mask.shape[1]),
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
    group: PackedGroup, numbers: Sequence[int], members: Sequence[Branches]
) -> Iterator[tuple[Int[Tensor, " C"], int, int]]:
    """For each row its tokens' predictors, its number and its length.

    What the first token of a further answer continues is the last one before its fork, or the prompt.
    """
    # The first token of every row is predicted by the last one of the prompt that they share.
    place, last = group.start + group.prompt, group.start + group.prompt - 1
    for row, made in zip(numbers, members, strict=True):
        begin, found = place, []
        for length, fork in zip(made.lengths, made.forks, strict=True):
            before, stands = begin + fork - 1 if fork else last, max(length - 1, 0)
            found.append(torch.cat([torch.tensor([before]), torch.arange(place, place + stands)])[:length])
            place += stands
        yield torch.cat(found), row, sum(made.lengths)


def _to(device: torch.device, mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.to(device)
