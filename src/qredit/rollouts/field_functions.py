"""Batch fields that are made when rollouts are sampled: one number for each rollout, or one for each of its tokens."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from qredit.core.field_names import REINFORCED
from qredit.rewards.judge.steps import number_steps, place_at_step_ends, split_step_texts
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import QreditError
from qredit.utils.former_names import former_names

FieldFunction = Callable[[Sequence[Trajectory], Any], Sequence[FieldValues]]
"""(trajectories, tokenizer) → for each a number, or a number for each of its tokens from the first on.

A trajectory comes with its texts (`rationale`, `response`), its group, its example and its reward.

Booleans become a span, whole numbers are -1 where none is given, other numbers 0.
"""


def clusters(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[int]:
    """`cluster`: rollouts of a group whose answers are one and the same text, case and spaces aside; -1 without one."""
    texts = [(one.group, " ".join(one.final_answer.casefold().split())) for one in trajectories]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return [numbers[text] if text[1] else -1 for text in texts]


def difficulty_tags(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[int]:
    """`difficulty_tag`: 1 where the completion begins with [Easy], 2 where with [Hard], in any case; else 0.

    As AdaCtrl's released code reads it (arXiv 2505.18822): a tag that comes later was not said before solving.
    """
    tags = {"[easy]": 1, "[hard]": 2}
    return [tags.get((one.rationale or one.response)[:6].casefold(), 0) for one in trajectories]


def reasoning_steps(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[list[int]]:
    """`step`: the number of the reasoning step of each rationale token; a blank line ends a step."""
    return [number_steps(one.rationale_ids, tokenizer) for one in trajectories]


def make_step_scorer(
    score: Callable[[str, Sequence[str]], Sequence[float]], show: Callable[[Any], str] = str
) -> FieldFunction:
    """A maker of `step_score` from a judge: (prompt, texts of the steps) → a score for each step.

    Args:
        score: the judge.
        show: a prompt as the judge reads it.
    """

    def make(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[list[float]]:
        found = []
        for one in trajectories:
            scores = score(show(one.example["prompt"]), split_step_texts(one.rationale_ids, tokenizer))
            found.append(place_at_step_ends(number_steps(one.rationale_ids, tokenizer), scores))
        return found

    return make


def turn_rewards(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[list[float]]:
    """`turn_reward`: on each token the reward that the environment gave for its turn; NaN where it gave none."""
    return [
        [one.turns[segment.turn].reward for segment in one.segments for _ in segment.ids]
        for one in _with_turns(trajectories, "turn_reward")
    ]


def states(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[list[int]]:
    """`state`: on each token the number of the state that its turn was taken in; -1 where the environment names none.

    Turns of a group in equal states have equal numbers.
    """
    played = _with_turns(trajectories, "state")
    keys = [(one.group, turn.state_key) for one in played for turn in one.turns if turn.state_key is not None]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [
        [
            numbers.get((one.group, one.turns[segment.turn].state_key or ""), -1)
            for segment in one.segments
            for _ in segment.ids
        ]
        for one in played
    ]


def trees(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[int]:
    """`tree`: the number of the tree of its group that each rollout was branched in; -1 where nothing branches."""
    return [one.tree for one in trajectories]


def reinforced_rollouts(trajectories: Sequence[Trajectory], tokenizer: Any) -> list[bool]:
    """`reinforced`: whether a rule of drawing drew the rollout in another way, to be learned from by itself."""
    return [one.reinforced for one in trajectories]


def _with_turns(trajectories: Sequence[Trajectory], name: str) -> Sequence[Trajectory]:
    if not all(one.turns for one in trajectories):
        raise QreditError(f"the batch field '{name}' is given by an environment, and these rollouts have none")
    return trajectories


EPISODE_FIELDS: Mapping[str, FieldFunction] = MappingProxyType({"turn_reward": turn_rewards, "state": states})
"""Fields that are there where an environment is."""
BRANCHING_FIELDS: Mapping[str, FieldFunction] = MappingProxyType({"tree": trees})
"""Fields that are there where episodes branch."""
DRAWING_FIELDS: Mapping[str, FieldFunction] = MappingProxyType({REINFORCED: reinforced_rollouts})
"""Fields that are there where a rule of drawing makes them."""
FIELD_FUNCTIONS: Mapping[str, FieldFunction] = MappingProxyType(
    {
        "cluster": clusters,
        "difficulty_tag": difficulty_tags,
        "step": reasoning_steps,
        **EPISODE_FIELDS,
        **BRANCHING_FIELDS,
        **DRAWING_FIELDS,
    }
)


def make_field_tensor(name: str, values: Sequence[FieldValues], kept: Sequence[int], width: int) -> Tensor:
    """A (B,) or (B, T) tensor of what a maker returned.

    Args:
        name: of the field, for errors.
        values: one for each trajectory: a number, or one for each token.
        kept: for each row, how many of its tokens' values stand; a row that ends in the gold answer keeps those before
            it.
        width: T.

    Raises:
        QreditError: numbers per rollout and per token mixed.
    """
    per_token = [isinstance(value, Sequence) for value in values]
    if any(per_token) != all(per_token):
        raise QreditError(f"batch field '{name}': some rollouts have one number, others one for each token")
    if not any(per_token):
        return torch.tensor(values)
    rows = [list(value)[:count] for value, count in zip(values, kept, strict=True)]  # type: ignore[arg-type]
    kind = torch.tensor([number for row in rows for number in row]).dtype
    fill = {torch.bool: False, torch.int64: -1}.get(kind, 0.0)
    out = torch.full((len(rows), width), fill, dtype=kind)
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.tensor(row, dtype=kind)
    return out


__getattr__ = former_names(
    __name__, {"Maker": "FieldFunction", "MAKERS": "FIELD_FUNCTIONS", "step_scores_by": "make_step_scorer"}
)
