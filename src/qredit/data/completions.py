"""Sampled completions with their rewards, as a run keeps them in a file: token ids, in the groups of their prompts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from qredit.rollouts.trajectory import EndReason, Trajectory
from qredit.utils.run_lengths import list_stretches


@dataclass(frozen=True)
class Completion:
    """What a model wrote behind a prompt, and what it got for it.

    Attributes:
        ids: token ids, in the order of the sequence.
        sampled: which of them the policy drew; those of a forced closing or of an observation it did not.
        reward: the weighted sum of the run's rewards; NaN where nothing scored it.
    """

    ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    reward: float

    @classmethod
    def of(cls, trajectory: Trajectory) -> "Completion":
        """That of a rollout."""
        drawn = ([segment.sampled] * len(segment.ids) for segment in trajectory.segments)
        return cls(trajectory.ids, tuple(chain.from_iterable(drawn)), trajectory.reward)

    def as_record(self) -> dict[str, Any]:
        """For JSON: `sampled` as stretches [start, end), a missing reward as null."""
        return {
            "ids": list(self.ids),
            "sampled": list_stretches(self.sampled),
            "reward": None if math.isnan(self.reward) else self.reward,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Completion":
        """What `as_record` was made of.

        Raises:
            ValueError: it is no such record, whatever it is.
        """
        ids = parse_ids(record.get("ids") if isinstance(record, Mapping) else None)
        stretches, reward = record.get("sampled"), record.get("reward")
        if reward is not None and not _is_number(reward):
            raise ValueError(f"reward must be a finite number or null, not {reward!r}")
        sampled = [False] * len(ids)
        for start, end in _parse_stretches(stretches, len(ids)):
            sampled[start:end] = [True] * (end - start)
        return cls(ids, tuple(sampled), math.nan if reward is None else float(reward))


@dataclass(frozen=True)
class CompletionGroup:
    """Completions of one prompt.

    Attributes:
        prompt_ids: token ids of the prompt, opening included.
        completions: behind it.
    """

    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {"prompt_ids": list(self.prompt_ids), "completions": [one.as_record() for one in self.completions]}

    @classmethod
    def from_record(cls, record: Any) -> "CompletionGroup":
        """What `as_record` was made of; further keys are not read.

        Raises:
            ValueError: it is no such record, whatever it is.
        """
        if not isinstance(record, Mapping) or not isinstance(record.get("completions"), list):
            raise ValueError("a group has prompt_ids and completions")
        prompt = parse_ids(record.get("prompt_ids"))
        return cls(prompt, tuple(Completion.from_record(one) for one in record["completions"]))


def group_by_prompt(trajectories: Sequence[Trajectory]) -> list[CompletionGroup]:
    """The completions of rollouts, in groups of one prompt, in the order in which prompts occur first.

    Candidates that a rule of branching did not go on from are left out: they end before there is an answer.
    """
    found: dict[tuple[int, ...], list[Completion]] = {}
    for one in trajectories:
        if one.end is EndReason.PRUNED:
            continue
        found.setdefault(tuple(one.prompt), []).append(Completion.of(one))
    return [CompletionGroup(prompt, tuple(completions)) for prompt, completions in found.items()]


def merge_groups(groups: Sequence[CompletionGroup]) -> list[CompletionGroup]:
    """One group for each prompt, with every different completion of it once."""
    found: dict[tuple[int, ...], dict[tuple[tuple[int, ...], str], Completion]] = {}
    for group in groups:
        known = found.setdefault(group.prompt_ids, {})
        for one in group.completions:
            known.setdefault((one.ids, repr(one.reward)), one)  # repr: NaN is not equal to itself
    return [CompletionGroup(prompt, tuple(known.values())) for prompt, known in found.items()]


def parse_ids(value: Any) -> tuple[int, ...]:
    """Token ids as JSON holds them.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        raise ValueError("token ids must be a list of whole numbers, none below 0")
    return tuple(value)


def _parse_stretches(value: Any, length: int) -> list[tuple[int, int]]:
    if not isinstance(value, list) or not all(map(_is_stretch, value)):
        raise ValueError("sampled must be a list of [start, end)")
    if not all(0 <= start <= end <= length for start, end in value):
        raise ValueError(f"sampled names tokens that are none of the {length}")
    return [(start, end) for start, end in value]


def _is_stretch(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(edge) is int for edge in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
