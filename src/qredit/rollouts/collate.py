"""From rollouts and gold answers to padded rows: the batch an objective reads and the ids a model scores."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.rollouts.fields import Values, as_field
from qredit.rollouts.trajectory import Rollout

Tail = Literal["answer", "response"]


@dataclass(frozen=True)
class Sampled:
    """A rollout with what is known of it: its prompt, its group, the gold answer's ids, its reward, made fields."""

    rollout: Rollout
    prompt: tuple[int, ...]
    group: int
    gold: tuple[int, ...]
    reward: float
    fields: Mapping[str, Values] = field(default_factory=dict)


def whole_groups(sampled: Sequence[Sampled], m: int) -> list[list[Sampled]]:
    """Neighbours of one prompt, M at a time."""
    return [list(sampled[start : start + m]) for start in range(0, len(sampled), m)]


def all_equal(group: Sequence[Sampled]) -> bool:
    """Whether the scored rollouts of a group have one and the same reward, so that none is better than another."""
    return len({one.reward for one in group if not math.isnan(one.reward)}) < 2


@dataclass(frozen=True, eq=False)
class Rows:
    """Padded rows: prompts to the left, completions to the right.

    Attributes:
        prompt_ids, prompt_mask: (B, P).
        batch: the completions (B, T) with spans, ids and fields.
        vocabulary: the ids that occur in the generation, gold answers included, where prediction errors are asked for.
        reference_hidden: (B, T, E) the reference's state that predicts each completion token, where a divergence over
            the whole vocabulary is asked for.
    """

    prompt_ids: Int[Tensor, "B P"]
    prompt_mask: Int[Tensor, "B P"]
    batch: RolloutBatch
    vocabulary: Int[Tensor, " V"] | None = None
    reference_hidden: Float[Tensor, "B T E"] | None = None

    def select(self, rows: slice | Tensor) -> "Rows":
        """Some of the rows."""
        return replace(
            self,
            prompt_ids=self.prompt_ids[rows],
            prompt_mask=self.prompt_mask[rows],
            batch=self.batch.select(rows),
            reference_hidden=None if self.reference_hidden is None else self.reference_hidden[rows],
        )


_OF_RESPONSES = frozenset({"reward", "cluster", "difficulty_tag", "response"})


def tails_for(needs: Iterable[str]) -> tuple[Tail, ...]:
    """Which tails an objective's needs call for: the gold answer for its likelihood, ŷ for what is judged of ŷ.

    An objective that needs neither is given ŷ, the completion as it was sampled.
    """
    needs = set(needs)
    gold: tuple[Tail, ...] = ("answer",) if "answer_logp" in needs else ()
    return gold + (("response",) if needs & _OF_RESPONSES or not gold else ())


def collate(sampled: Sequence[Sampled], tails: Sequence[Tail], pad: int, seed: int, device: torch.device) -> Rows:
    """One row per rollout and tail, in order; with two tails, the two rows of a rollout share `rollout`.

    A reward stands only in rows that end in the sampled answer when there are both; it is NaN in the others.
    """
    rows = [(number, item, tail) for number, item in enumerate(sampled) for tail in tails]
    parts = [_spans(item, tail) for _, item, tail in rows]
    both = len(tails) > 1
    rewards = [torch.nan if both and tail == "answer" else item.reward for _, item, tail in rows]
    prompts = [item.prompt for _, item, _ in rows]
    width = max(len(part.ids) for part in parts)

    def spread(name: str, dtype: torch.dtype, fill: float = 0) -> Tensor:
        out = torch.full((len(rows), width), fill, dtype=dtype)
        for row, part in enumerate(parts):
            values = getattr(part, name)
            out[row, : len(values)] = torch.tensor(values, dtype=dtype)
        return out.to(device)

    batch = RolloutBatch(
        mask=spread("mask", torch.bool),
        rationale=spread("rationale", torch.bool),
        answer=spread("answer", torch.bool),
        close=spread("close", torch.bool),
        response=spread("response", torch.bool),
        sampled=spread("sampled", torch.bool),
        ids=spread("ids", torch.long, pad),
        turn=torch.zeros(len(rows), width, dtype=torch.long, device=device),
        sampler_logp=spread("logp", torch.float32),
        group=torch.tensor([item.group for _, item, _ in rows], device=device),
        rollout=torch.tensor([number for number, _, _ in rows], device=device) if both else None,
        reward=torch.tensor(rewards, dtype=torch.float64, device=device),
        seed=seed,
        extra={
            name: as_field(name, [item.fields[name] for _, item, _ in rows], _own_tokens(rows), width).to(device)
            for name in (sampled[0].fields if sampled else ())
        },
    )
    prompt_width = max(map(len, prompts))
    prompt_ids = torch.full((len(rows), prompt_width), pad)
    prompt_mask = torch.zeros_like(prompt_ids)
    for row, prompt in enumerate(prompts):
        prompt_ids[row, prompt_width - len(prompt) :] = torch.tensor(prompt)
        prompt_mask[row, prompt_width - len(prompt) :] = 1
    return Rows(prompt_ids=prompt_ids.to(device), prompt_mask=prompt_mask.to(device), batch=batch)


def _own_tokens(rows: Sequence[tuple[int, Sampled, Tail]]) -> list[int]:
    """How many tokens of each row were there when its rollout's fields were made."""
    return [len(item.rollout.ids) if tail == "response" else item.rollout.close_end for _, item, tail in rows]


@dataclass(frozen=True)
class _Part:
    """The columns of one row, unpadded."""

    ids: tuple[int, ...]
    mask: list[bool]
    rationale: list[bool]
    close: list[bool]
    answer: list[bool]
    response: list[bool]
    sampled: list[bool]
    logp: tuple[float, ...]


def _spans(item: Sampled, tail: Tail) -> _Part:
    """Rationale, closing and one tail of a rollout; a sampled closing is part of the rationale, a forced one is not."""
    rollout, gold = item.rollout, tail == "answer"
    head = rollout.ids[: rollout.close_end]
    tail_ids = item.gold if gold else rollout.answer_ids
    tail_logp = (0.0,) * len(tail_ids) if gold else rollout.logp[rollout.close_end :]
    drawn = rollout.close_start if rollout.forced else rollout.close_end
    length = len(head) + len(tail_ids)

    def between(start: int, end: int) -> list[bool]:
        return [start <= position < end for position in range(length)]

    return _Part(
        ids=head + tail_ids,
        mask=[True] * length,
        rationale=between(0, drawn),
        close=between(rollout.close_start, rollout.close_end),
        answer=between(len(head), length) if gold else [False] * length,
        response=[False] * length if gold else between(len(head), length),
        sampled=[p < drawn or (not gold and p >= len(head)) for p in range(length)],
        logp=rollout.logp[: rollout.close_end] + tail_logp,
    )
