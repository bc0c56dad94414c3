"""Batch fields that are made when rollouts are sampled: one number for each rollout, or one for each of its tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from qredit.rewards.judge.steps import at_step_ends, step_texts, steps_of
from qredit.utils.errors import QreditError

Values = bool | int | float | Sequence[bool] | Sequence[int] | Sequence[float]


@dataclass(frozen=True)
class Seen:
    """A rollout as a field's maker sees it.

    Attributes:
        ids: the completion: rationale, closing, sampled answer.
        thought: how many of them are the rationale, without its closing.
        rationale, response: the same two parts as text.
        group: rollouts of one prompt share it.
        example: the data set's row.
    """

    ids: tuple[int, ...]
    thought: int
    rationale: str
    response: str
    group: int
    example: Mapping[str, Any]


Maker = Callable[[Sequence[Seen], Any], Sequence[Values]]
"""(rollouts, tokenizer) → for each rollout a number, or a number for each of its tokens from the first on.

Booleans become a span, whole numbers are -1 where none is given, other numbers 0.
"""


def clusters(rollouts: Sequence[Seen], tokenizer: Any) -> list[int]:
    """`cluster`: rollouts of a group whose answers are one and the same text, case and spaces aside; -1 if empty."""
    texts = [(seen.group, " ".join(seen.response.casefold().split())) for seen in rollouts]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return [numbers[text] if text[1] else -1 for text in texts]


def difficulty_tags(rollouts: Sequence[Seen], tokenizer: Any) -> list[int]:
    """`difficulty_tag`: 1 where the completion begins with [Easy], 2 where with [Hard], in any case; else 0.

    As AdaCtrl's released code reads it (arXiv 2505.18822): a tag that comes later was not said before solving.
    """
    tags = {"[easy]": 1, "[hard]": 2}
    return [tags.get((seen.rationale or seen.response)[:6].casefold(), 0) for seen in rollouts]


def reasoning_steps(rollouts: Sequence[Seen], tokenizer: Any) -> list[list[int]]:
    """`step`: the number of the reasoning step of each rationale token; a blank line ends a step."""
    return [steps_of(seen.ids[: seen.thought], tokenizer) for seen in rollouts]


def step_scores_by(score: Callable[[str, Sequence[str]], Sequence[float]]) -> Maker:
    """A maker of `step_score` from a judge: (prompt, texts of the steps) → a score for each step."""

    def make(rollouts: Sequence[Seen], tokenizer: Any) -> list[list[float]]:
        found = []
        for seen in rollouts:
            thought = seen.ids[: seen.thought]
            scores = score(str(seen.example["prompt"]), step_texts(thought, tokenizer))
            found.append(at_step_ends(steps_of(thought, tokenizer), scores))
        return found

    return make


MAKERS: Mapping[str, Maker] = MappingProxyType(
    {"cluster": clusters, "difficulty_tag": difficulty_tags, "step": reasoning_steps}
)


def as_field(name: str, values: Sequence[Values], kept: Sequence[int], width: int) -> Tensor:
    """A (B,) or (B, T) tensor of what a maker returned.

    Args:
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
