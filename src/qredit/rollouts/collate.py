"""From trajectories and gold answers to padded rows: the batch an objective reads and the ids a model scores."""

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import SPANS, RolloutBatch
from qredit.rollouts.field_functions import make_field_tensor
from qredit.rollouts.trajectory import Role, Segment, Trajectory

_KINDS = {"i": torch.int32, "f": torch.float32}
"""What `array` calls the kinds of numbers in which rollouts travel."""
Tail = Literal["answer", "response"]


def split_groups(trajectories: Sequence[Trajectory], m: int) -> list[list[Trajectory]]:
    """Neighbours of one prompt, M at a time."""
    return [list(trajectories[start : start + m]) for start in range(0, len(trajectories), m)]


def has_equal_rewards(group: Sequence[Trajectory]) -> bool:
    """Whether the scored ones of a group have one and the same reward, so that none is better than another."""
    return len({one.reward for one in group if not math.isnan(one.reward)}) < 2


@dataclass(frozen=True, eq=False)
class Rows:
    """Padded rows: prompts to the left, completions to the right.

    Attributes:
        prompt_ids, prompt_mask: (B, P).
        batch: the completions (B, T) with spans, ids and fields.
        vocabulary: the ids that occur in the generation, gold answers included, where prediction errors are asked for.
        teacher_hidden: (B, T, E) the state of each teacher that predicts each completion token, where a divergence
            from it over the whole vocabulary is asked for.
        forks: (B, A) how many of a row's first tokens each right answer continues, the first one all before it; None
            where all continue the whole rationale.
    """

    prompt_ids: Int[Tensor, "B P"]
    prompt_mask: Int[Tensor, "B P"]
    batch: RolloutBatch
    vocabulary: Int[Tensor, " V"] | None = None
    teacher_hidden: Mapping[str, Float[Tensor, "B T E"]] = field(default_factory=dict)
    forks: Int[Tensor, "B A"] | None = None

    def select(self, rows: slice | Tensor) -> "Rows":
        """Some of the rows."""
        return replace(
            self,
            prompt_ids=self.prompt_ids[rows],
            prompt_mask=self.prompt_mask[rows],
            batch=self.batch.select(rows),
            teacher_hidden={name: hidden[rows] for name, hidden in self.teacher_hidden.items()},
            forks=None if self.forks is None else self.forks[rows],
        )


_OF_RESPONSES = frozenset({"reward", "cluster", "difficulty_tag", "response"})


def choose_tails(needs: Iterable[str]) -> tuple[Tail, ...]:
    """Which tails an objective's needs call for: the gold answer for its likelihood, ŷ for what is judged of ŷ.

    An objective that needs neither is given ŷ, the completion as it was sampled.
    """
    needs = set(needs)
    gold: tuple[Tail, ...] = ("answer",) if "answer_logp" in needs else ()
    return gold + (("response",) if needs & _OF_RESPONSES or not gold else ())


@dataclass(frozen=True)
class RowSpec:
    """One row that collation makes of a trajectory.

    Attributes:
        number: that of the trajectory among those collated.
        golds: the right answers that the row ends in, each once; none of them where it ends in the sampled answer.
    """

    number: int
    trajectory: Trajectory
    golds: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of the row; those of right answers each continue what stands before the first of them."""
        if not self.golds:
            return self.trajectory.segments
        turn = max((segment.turn for segment in self.trajectory.segments), default=0)
        return (*self.trajectory.head, *(Segment(gold, Role.GOLD, sampled=False, turn=turn) for gold in self.golds))

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return sum(len(segment.ids) for segment in self.segments)


def plan_rows(trajectories: Sequence[Trajectory], tails: Sequence[Tail]) -> list[RowSpec]:
    """The rows of some trajectories, in order: one for each tail, its sampled answer or all of its right answers.

    A rationale with several right answers is one row, so that it counts once wherever rows are counted. An answer that
    is given twice stands there once. An episode that was not played to its end stands as it was sampled, without a
    right answer. It was not on its way to one, and likelihood stages leave such rows out.
    """
    return [
        RowSpec(number, one, golds if tail == "answer" else ())
        for number, one in enumerate(trajectories)
        for golds in [tuple(dict.fromkeys(one.golds)) if one.is_whole else ()]
        for tail in tails
        if tail == "response" or golds or (not one.is_whole and "response" not in tails)
    ]


def collate(
    trajectories: Sequence[Trajectory], tails: Sequence[Tail], pad: int, seed: int, device: torch.device
) -> Rows:
    """One row for each trajectory and tail, in order; the rows of one trajectory share `rollout` if it has several.

    The rationale is all that was sampled before the last answer: thinking, closings that were sampled, and the actions
    of earlier turns. A reward stands only in rows that end in the sampled answer when there are both tails; it is NaN
    in the others.

    Args:
        trajectories: sampled rollouts, in order.
        tails: what rows end in: answer, response, or both.
        pad: id of the padding token.
        seed: of the batch: stages that draw depend on it.
        device: where the batch is put.
    """
    rows = plan_rows(trajectories, tails)
    both = len(tails) > 1
    rewards = [torch.nan if both and row.golds else row.trajectory.reward for row in rows]
    width = max(row.length for row in rows)
    spans = {name: torch.zeros(len(rows), width, dtype=torch.bool) for name in ("mask", *SPANS)}
    ids, turn = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    logp, alias = torch.zeros(len(rows), width), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        start, answers = 0, 0
        for segment in row.segments:
            at = (number, slice(start, start + len(segment.ids)))
            last = segment is row.trajectory.answer
            spans["mask"][at] = True
            spans["sampled"][at] = segment.sampled
            spans["rationale"][at] = segment.sampled and not last
            spans["close"][at] = segment.role == Role.CLOSE
            spans["response"][at] = last
            spans["answer"][at] = segment.role == Role.GOLD
            spans["observation"][at] = segment.role == Role.OBSERVATION
            ids[at], turn[at] = _to_tensor(segment.ids), segment.turn
            if segment.role == Role.GOLD:
                alias[at], answers = answers, answers + 1
            if segment.logp is not None:
                logp[at] = _to_tensor(segment.logp)
            start += len(segment.ids)
    observed = bool(spans["observation"].any())
    batch = RolloutBatch(
        **{name: span.to(device) for name, span in spans.items() if name != "observation" or observed},
        ids=ids.to(device),
        turn=turn.to(device),
        sampler_logp=logp.to(device),
        group=torch.tensor([row.trajectory.group for row in rows], device=device),
        rollout=_shared(rows, device) if len(rows) > len(trajectories) else None,
        proposal=_drawn_from_proposal(rows, device),
        alias=alias.to(device) if bool(alias.any()) else None,
        reward=torch.tensor(rewards, dtype=torch.float64, device=device),
        seed=seed,
        extra={
            name: make_field_tensor(name, [row.trajectory.fields[name] for row in rows], _own_tokens(rows), width).to(
                device
            )
            for name in (trajectories[0].fields if trajectories else ())
        },
    )
    return Rows(*pad_prompts([row.trajectory.prompt for row in rows], pad, device), batch)


def pad_prompts(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Int[Tensor, "B P"], Int[Tensor, "B P"]]:
    """Prompts filled up on the left, and a mask that is 1 on their own tokens.

    Args:
        prompts: token ids.
        pad: id of the padding token.
        device: where both are put.
    """
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for number, prompt in enumerate(prompts):
        ids[number, width - len(prompt) :] = torch.tensor(prompt)
        mask[number, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _to_tensor(values: Sequence[int] | Sequence[float]) -> Tensor:
    """Numbers as a tensor, which shares the memory of an `array`; of other sequences each is read."""
    if isinstance(values, array) and values:
        return torch.frombuffer(values, dtype=_KINDS[values.typecode])
    return torch.tensor(values)


def _shared(rows: Sequence[RowSpec], device: torch.device) -> Int[Tensor, " B"]:
    return torch.tensor([row.number for row in rows], device=device)


def _drawn_from_proposal(rows: Sequence[RowSpec], device: torch.device) -> Bool[Tensor, " B"] | None:
    """The rows that came from the proposal, where their trajectories know of one."""
    if not any(row.trajectory.hinted for row in rows):
        return None
    return torch.tensor([row.trajectory.proposal for row in rows], device=device)


def _own_tokens(rows: Sequence[RowSpec]) -> list[int]:
    """How many tokens of each row were there when its trajectory's fields were made."""
    return [row.trajectory.close_end if row.golds else len(row.trajectory.ids) for row in rows]
