"""Rows with several right answers: where the answers branch off, and the same rows with one answer each.

    columns of a row    rationale, closing | gold answer | alias 1 | alias 2
    what each sees      all before it      | rationale   | rationale, and its own tokens before it

In a packing the rationale is computed once and every answer branches off it. Where rows are padded, each answer has a
row with a copy of the rationale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.rollouts.collate import Rows


@dataclass(frozen=True)
class Branches:
    """How the tokens of a row follow one another.

    Attributes:
        fork: tokens that all right answers continue; 0 where there is only one.
        lengths: tokens of these and of the first answer together, then of each further answer.
    """

    fork: int
    lengths: tuple[int, ...]

    @property
    def columns(self) -> list[range]:
        """The columns of the row that each branch adds."""
        ends = list(accumulate(self.lengths))
        return [range(end - length, end) for end, length in zip(ends, self.lengths, strict=True)]

    @property
    def places(self) -> list[range]:
        """For each branch the numbers of its tokens behind the prompt, as positions count them."""
        starts = [0, *[self.fork] * (len(self.lengths) - 1)]
        return [range(start, start + length) for start, length in zip(starts, self.lengths, strict=True)]


def find_branches(batch: RolloutBatch) -> list[Branches]:
    """The branches of each row; one where a row has no aliases."""
    lengths = batch.mask.sum(1).tolist()
    if batch.alias is None:
        return [Branches(0, (length,)) for length in lengths]
    answers = torch.zeros(len(lengths), int(batch.alias.max()) + 1, dtype=torch.long, device=batch.alias.device)
    found = []
    for length, counts in zip(lengths, answers.scatter_add(1, batch.alias, batch.answer.long()).tolist(), strict=True):
        further = tuple(filter(None, counts[1:]))
        fork = length - sum(counts) if further else 0
        found.append(Branches(fork, (length - sum(further), *further)))
    return found


def make_visibility(rows: Sequence[Branches], prompt: int) -> Bool[Tensor, "M W S"] | None:
    """What each token of a completion sees, S = P + W: prompt, then completion. The last token of a branch is left out.

    None where each token sees all before it. Tokens that fill a row up see all before them, too: their results are not
    read, and an attention needs something to see.

    Args:
        prompt: P, tokens of the prompt.
    """
    if all(len(row.lengths) == 1 for row in rows):
        return None
    of_rows = []
    for row in rows:
        sizes = [max(length - 1, 0) for length in row.lengths]
        branch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        branch[: row.fork] = -1  # all answers continue these
        of_rows.append(branch)
    branch = torch.nn.utils.rnn.pad_sequence(of_rows, batch_first=True, padding_value=-2)
    query, key = branch[:, :, None], branch[:, None, :]
    own = ((key == -1) | (key == query) | (query == -2)).tril()
    return torch.cat([own.new_ones(*branch.shape, prompt), own], 2)


def repeat_for_answers(rows: Rows) -> tuple[Rows, Int[Tensor, "B T"]]:
    """The rows with one right answer each, for a forward pass, and where each token of `rows` stands among theirs.

    Returns:
        Rows (R, T') that hold ids and mask, the rationale repeated for each answer; for each token of `rows` its place
        in the flattened (R, T').
    """
    ids, mask, device = rows.batch.ids, rows.batch.mask, rows.batch.mask.device
    assert ids is not None
    branches = find_branches(rows.batch)
    source: list[int] = []
    columns: list[Tensor] = []
    place = torch.zeros(mask.shape, dtype=torch.long)
    width = max((stretch.stop for row in branches for stretch in row.places), default=0)
    for number, row in enumerate(branches):
        for own, stretch in zip(row.columns, row.places, strict=True):
            place[number, own.start : own.stop] = len(source) * width + torch.arange(stretch.start, stretch.stop)
            source.append(number)
            columns.append(torch.cat([torch.arange(stretch.start), torch.arange(own.start, own.stop)]))
    order = torch.tensor(source, device=device)
    at = torch.nn.utils.rnn.pad_sequence(columns, batch_first=True).to(device)
    there = torch.arange(width)[None] < torch.tensor([[len(one)] for one in columns])
    present = there.to(device)
    single = RolloutBatch(
        mask=present,
        rationale=present,
        answer=torch.zeros_like(present),
        group=rows.batch.group[order],
        ids=ids[order].gather(1, at),
    )
    return Rows(rows.prompt_ids[order], rows.prompt_mask[order], single), place.to(device)
