"""What a task is: where its records come from, how one becomes a prompt and an answer, and how an answer is judged."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qredit.errors import QreditError

Style = Literal["cold", "warm"]
Split = Literal["train", "validation", "test"]
Record = Mapping[str, Any]
Message = dict[str, Any]


def answer_text(value: Any) -> Any:
    """The text of an answer that is given as one assistant message; anything else as it is."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        message = value[0]
        if message.get("role") == "assistant" and set(message) == {"role", "content"}:
            return message["content"]
    return value


@dataclass(frozen=True)
class Example:
    """One question and its gold answer.

    Attributes:
        prompt: the text shown to the model, without any chat template, or chat messages.
        answer: the canonical gold answer: the string whose likelihood is trained.
        id: unique within its task.
        aliases: other answers that count as right; the likelihood does not see them.
        rationale: a gold rationale, known for pocket tasks only and used only to pretrain their model.
    """

    prompt: str | list[Message]
    answer: str
    id: str = ""
    aliases: tuple[str, ...] = ()
    rationale: str | None = None


@dataclass(frozen=True)
class Task:
    """A data set and how it is read.

    Attributes:
        name: as given to --task.
        summary: one line for `qredit tasks`.
        read: (source, split) → records in the official schema; the source is a path on disk, a data set id, or None.
        render: (record, style) → example. "cold" is the linearised input alone; "warm" adds a task description and an
            instruction about the answer's format.
        reward: name of the training reward, a key of `qredit.rewards.REGISTRY`.
        metrics: names of the evaluation metrics, keys of the same registry.
        default_data: data set id used when no source is given; None when one must be.
        sizes: examples per split in the published experiments; see `subset`.
    """

    name: str
    summary: str
    read: Callable[[str | None, Split], Iterable[Record]]
    render: Callable[[Record, Style], Example]
    reward: str = "exact_match"
    metrics: tuple[str, ...] = ("exact_match",)
    default_data: str | None = None
    sizes: Mapping[Split, int] = field(default_factory=dict)

    def load(self, source: str | None, split: Split, style: Style, limit: int | None = None) -> list[Example]:
        """The examples of a split, in the order of the hash of their id.

        Args:
            source: a path on disk or a data set id; None takes `default_data`.
            limit: keep the first that many in hash order.

        Raises:
            QreditError: no source, a record that lacks a field, an empty answer or a repeated id (all of them counted,
                the first named).
        """
        examples = [self.render(record, style) for record in self.read(source or self.default_data, split)]
        empty = [example.id for example in examples if not example.answer.strip()]
        if empty:
            raise QreditError(f"{self.name}: {len(empty)} of {len(examples)} answers are empty, first in '{empty[0]}'")
        twice = [id for id, count in Counter(example.id for example in examples).items() if count > 1]
        if twice:
            raise QreditError(f"{self.name}: {len(twice)} ids occur more than once, first '{twice[0]}'")
        return hash_order(examples)[:limit]


def hash_of(id: str) -> str:
    """SHA-256 of an id, in hexadecimal: what subsets and carved splits are ordered by."""
    return hashlib.sha256(id.encode()).hexdigest()


def hash_order(examples: Sequence[Example]) -> list[Example]:
    """The examples by SHA-256 of their id: our deterministic rule for subsets, whatever order the files are in.

    The published experiments give the sizes of their subsets (`Task.sizes`) but no rule, so theirs cannot be rebuilt.
    """
    return sorted(examples, key=lambda example: hash_of(example.id))
