"""Random RolloutBatches with every field filled: ragged rows, forced and sampled closings, groups of several sizes."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import SPANS, RolloutBatch
from qredit.core.chain import Stage
from qredit.core.objective import Objective
from qredit.testing.fields import random_field
from qredit.utils.seed import derive_seed

SIZES = (4, 3, 1, 5)
WIDTHS = (6, 2, 4)  # the longest rationale, closing and tail


def make_batch_for(
    part: Objective | Stage, seed: int, sizes: tuple[int, ...] = SIZES, widths: tuple[int, int, int] = WIDTHS
) -> RolloutBatch:
    """A random batch with all fields and tails that an objective or a stage needs.

    Rows end in the gold answer, in a sampled one, or in each of the two, in two rows.

    Args:
        part: its `needs` say which tails and fields.
        seed: all draws are a function of it.
        sizes: rollouts of each group.
        widths: most tokens of rationale, closing and tail.
    """
    return _make_batch_with(part.needs, seed, sizes, widths)


@lru_cache(maxsize=256)
def _make_batch_with(
    needs: frozenset[str], seed: int, sizes: tuple[int, ...], widths: tuple[int, int, int]
) -> RolloutBatch:
    """Made once for all laws and objectives that ask for the same: it takes as long as evaluating an objective."""
    wants = needs & {"reward", "answer_logp"}
    batch = random_batch(
        seed, gold="answer_logp" in wants, said="reward" in wants or not wants, sizes=sizes, widths=widths
    )
    missing = sorted(needs - set(batch.present))
    generator = torch.Generator().manual_seed(seed + 1)
    return replace(batch, extra={name: random_field(name, batch, generator) for name in missing})


def random_batch(
    seed: int, gold: bool, said: bool, sizes: tuple[int, ...] = SIZES, widths: tuple[int, int, int] = WIDTHS
) -> RolloutBatch:
    """Rollouts of groups of these `sizes`, every optional field filled; a function of `seed`.

    Args:
        seed: all draws are a function of it.
        gold: rows that end in the gold answer, with a likelihood between 1 and e^{-60}.
        said: rows that end in a sampled answer, with a reward of 0 or 1. With both, rows of one rationale share
            `rollout`, and a reward stands in the second only.
        sizes: rollouts of each group.
        widths: most tokens of rationale, closing and tail.
    """
    generator = torch.Generator().manual_seed(seed)
    tails = [tail for tail, wanted in (("answer", gold), ("response", said)) if wanted]
    rollout = torch.arange(sum(sizes)).repeat_interleave(len(tails))
    is_gold = torch.tensor([tail == "answer" for tail in tails]).repeat(sum(sizes))
    spans = _spans(rollout, is_gold, widths, generator)
    rows, width = spans["mask"].shape
    spread = 60 * torch.rand(rows, 1, dtype=torch.float64, generator=generator)
    logp = -torch.rand(rows, width, dtype=torch.float64, generator=generator)
    reward = torch.randint(2, (rows,), generator=generator).double()
    return RolloutBatch(
        **spans,
        group=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[rollout],
        ids=torch.randint(50, (rows, width), generator=generator),
        turn=(torch.arange(width) >= torch.randint(1, 6, (rows, 1), generator=generator)).long(),
        rollout=rollout if gold and said else None,
        proposal=_proposed(sizes, seed)[rollout],
        seed=seed,
        reward=torch.where(is_gold & said, torch.nan, reward) if said else None,
        answer_logp=torch.where(is_gold, -spread[:, 0], 0.0) if gold else None,
        logp=logp,
        sampler_logp=logp + 0.1 * torch.randn(rows, width, dtype=torch.float64, generator=generator),
        entropy=torch.rand(rows, width, dtype=torch.float64, generator=generator),
    )


def _proposed(sizes: tuple[int, ...], seed: int) -> Bool[Tensor, " R"]:
    """Two rollouts or none of each group of four and more are drawn from the proposal; by random numbers of its own."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 1))
    orders = [torch.randperm(size, generator=generator) for size in sizes]
    counts = (2 * torch.randint(2, (len(sizes),), generator=generator)).tolist()
    return torch.cat([(order < k) & (len(order) >= 4) for order, k in zip(orders, counts, strict=True)])


def _spans(
    rollout: Int[Tensor, " B"], is_gold: Tensor, widths: tuple[int, int, int], generator: torch.Generator
) -> dict[str, Any]:
    """Ragged spans (B, T): a rationale, a closing that is forced in half of the rollouts, a tail."""

    def lengths(most: int) -> Tensor:
        return torch.randint(1, most + 1, (int(rollout.max()) + 1,), generator=generator)[rollout]

    thought, closing, tail = (lengths(most) for most in widths)
    forced = torch.randint(2, (int(rollout.max()) + 1,), generator=generator).bool()[rollout]
    column = torch.arange(sum(widths))
    starts = [thought, thought + closing, thought + closing + tail]
    before_close, before_tail, before_end = (column < start[:, None] for start in starts)
    close, last = before_tail & ~before_close, before_end & ~before_tail
    drawn = before_close | (close & ~forced[:, None])
    answer, response = last & is_gold[:, None], last & ~is_gold[:, None]
    return {
        "mask": before_end,
        "rationale": drawn,
        "close": close,
        "answer": answer,
        "response": response,
        "sampled": drawn | response,
    }


def insert_observations(batch: RolloutBatch, seed: int, content: int) -> RolloutBatch:
    """The same rollouts with one to three tokens of an observation inside each rationale, at a random place.

    Args:
        batch: rollouts without observations.
        seed: places and lengths are a function of it.
        content: so are ids and numbers of the observation's tokens, of this.
    """
    places, filled = (torch.Generator().manual_seed(number) for number in (seed, content))
    rows, width = batch.mask.shape
    rollout = torch.arange(rows) if batch.rollout is None else batch.rollout  # two rows of one rationale stay alike
    drawn = torch.rand(2, int(rollout.max()) + 1, generator=places)[:, rollout]
    length = 1 + (3 * drawn[1]).long()
    start = 1 + (drawn[0] * batch.rationale.sum(1)).long()
    column = torch.arange(width + 3).expand(rows, -1)
    seen = (column >= start[:, None]) & (column < (start + length)[:, None])
    source = torch.where(column < start[:, None], column, column - length[:, None])
    source = torch.where(seen, start[:, None] - 1, source)
    beyond = source >= width
    source = source.clamp(max=width - 1)

    def widened(name: str, value: Tensor) -> Tensor:
        taken = value.gather(1, source.view(*source.shape, *[1] * (value.dim() - 2)).expand(-1, -1, *value.shape[2:]))
        empty = (seen if name in SPANS else torch.zeros_like(seen)) | beyond
        if value.is_floating_point():
            taken[seen] = torch.randn(taken[seen].shape, dtype=value.dtype, generator=filled)
        elif name == "ids":
            taken[seen] = torch.randint(50, (int(seen.sum()),), generator=filled)
        taken[empty] = 0
        return taken

    held = {name: batch.require(name, "observations") for name in batch.present}
    changes: dict[str, Tensor | None] = {name: widened(name, one) for name, one in held.items() if one.dim() > 1}
    return replace_fields(batch, {**changes, "observation": seen})


def permute_rows(batch: RolloutBatch, order: Int[Tensor, " B"]) -> RolloutBatch:
    """The same rows in another order."""
    return batch.select(order)


def pad_columns(batch: RolloutBatch, columns: int) -> RolloutBatch:
    """The same rows with empty columns to the right: not in the mask, their numbers NaN where they can be."""
    changes: dict[str, Any] = {}
    for name in batch.present:
        value = batch.require(name, "widened")
        if value.dim() > 1:
            fill = torch.nan if value.is_floating_point() else 0
            changes[name] = torch.nn.functional.pad(value, (*(0, 0) * (value.dim() - 2), 0, columns), value=fill)
    return replace_fields(batch, changes)


def replace_fields(batch: RolloutBatch, changes: Mapping[str, Tensor | None]) -> RolloutBatch:
    """`dataclasses.replace` for fields of its own and extra ones alike; None takes a field away."""
    extra = {name: changes.get(name, value) for name, value in batch.extra.items()}
    own: dict[str, Any] = {name: value for name, value in changes.items() if name not in batch.extra}
    return replace(batch, **own, extra={name: value for name, value in extra.items() if value is not None})


def renumber_groups(batch: RolloutBatch, numbers: Int[Tensor, " G"]) -> RolloutBatch:
    """The same groups under other numbers."""
    return replace(batch, group=numbers[batch.groups.index])


def set_likelihood(batch: RolloutBatch, log_w: Float[Tensor, " B"]) -> RolloutBatch:
    """The same rows with these log-likelihoods where a gold answer stands."""
    return replace(batch, answer_logp=torch.where(batch.has_answer, log_w, 0.0))
