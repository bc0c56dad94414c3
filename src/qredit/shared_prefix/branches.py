"""Rows with several right answers: where the answers branch off, and the same rows with one answer each.

    columns of a row    rationale, closing | gold answer | alias 1 | alias 2
    what each sees      all before it      | rationale   | rationale, and its own tokens before it

A further answer may also branch off earlier, and sees no more than the first tokens of the rationale (`Rows.forks`).

In a packing the rationale is computed once and every answer branches off it. Where rows are padded, each answer has a
row with a copy of what it continues.
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
        lengths: tokens of the rationale and the first answer together, then of each further answer.
        forks: of the first ones, how many each branch continues; 0 for the first branch.
    """

    lengths: tuple[int, ...]
    forks: tuple[int, ...] = (0,)

    @property
    def columns(self) -> list[range]:
        """The columns of the row that each branch adds."""
        ends = list(accumulate(self.lengths))
        return [range(end - length, end) for end, length in zip(ends, self.lengths, strict=True)]

    @property
    def places(self) -> list[range]:
        """For each branch the numbers of its tokens behind the prompt, as positions count them."""
        return [range(fork, fork + length) for fork, length in zip(self.forks, self.lengths, strict=True)]


def find_branches(batch: RolloutBatch, forks: Int[Tensor, "B A"] | None = None) -> list[Branches]:
    """The branches of each row; one where a row has no aliases.

    Args:
        batch: the rows.
        forks: as in `Rows`; None: all answers of a row continue its whole rationale.
    """
    lengths = batch.mask.sum(1).tolist()
    if batch.alias is None:
        return [Branches((length,)) for length in lengths]
    answers = torch.zeros(len(lengths), int(batch.alias.max()) + 1, dtype=torch.long, device=batch.alias.device)
    found = []
    each = answers.scatter_add(1, batch.alias, batch.answer.long()).tolist()
    for row, (length, counts) in enumerate(zip(lengths, each, strict=True)):
        further = [number for number, count in enumerate(counts) if number and count]
        whole = length - sum(counts)
        own = [whole] * len(further) if forks is None else forks[row, further].tolist()
        sizes = [counts[number] for number in further]
        found.append(Branches((length - sum(sizes), *sizes), (0, *own)))
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
    branches, forks = [], []
    for row in rows:
        sizes = torch.tensor([max(length - 1, 0) for length in row.lengths])
        branches.append(torch.repeat_interleave(torch.arange(len(sizes)), sizes))
        forks.append(torch.repeat_interleave(torch.tensor(row.forks), sizes))
    pad = torch.nn.utils.rnn.pad_sequence
    branch = pad(branches, batch_first=True, padding_value=-1)
    query, key = branch[:, :, None], branch[:, None, :]
    continued = torch.arange(branch.shape[1]) < pad(forks, batch_first=True)[:, :, None]
    own = ((key == query) | continued | (query == -1)).tril()
    return torch.cat([own.new_ones(*branch.shape, prompt), own], 2)


def repeat_for_answers(rows: Rows) -> tuple[Rows, Int[Tensor, "B T"]]:
    """The rows with one right answer each, for a forward pass, and where each token of `rows` stands among theirs.

    Returns:
        Rows (R, T') that hold ids and mask, the rationale repeated for each answer; for each token of `rows` its place
        in the flattened (R, T').
    """
    ids, mask, device = rows.batch.ids, rows.batch.mask, rows.batch.mask.device
    assert ids is not None
    branches = find_branches(rows.batch, rows.forks)
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
