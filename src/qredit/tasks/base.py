"""What a task is: where its records come from, how one becomes a prompt and an answer, and how an answer is judged."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qredit.tasks.cells import Message
from qredit.tasks.normal_forms import find_unreadable, normalize_prompt, normalize_text
from qredit.utils.errors import QreditError

Style = Literal["cold", "warm"]
Split = Literal["train", "validation", "test"]
Passages = Literal["all", "supporting", "none"]
Record = Mapping[str, Any]
NEEDED = "every row needs one"
"""Why rows must have an answer, where nobody says it better."""
PLACE_KEY = "(place)"


@dataclass(frozen=True)
class Example:
    """One question and its gold answer.

    Attributes:
        prompt: the text shown to the model, without any chat template, or chat messages.
        answer: the canonical gold answer: the string that is trained to be likely. None where the data has none, which
            is read only for those who need none (`runs.load.load_data`).
        id: unique within its task.
        aliases: other answers that count as right; what they count for is the run's option `aliases`.
        rationale: a gold rationale, known for pocket tasks only and used only to pretrain their model.
        place: its file and number there, for messages; a record holds it under `PLACE_KEY`.
        columns: the whole row of the user's data, for reward functions that read more of it.
    """

    prompt: str | list[Message]
    answer: str | None
    id: str = ""
    aliases: tuple[str, ...] = ()
    rationale: str | None = None
    place: str = field(default="", compare=False)
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def gold(self) -> str:
        """The answer, for those who were promised one."""
        assert self.answer is not None, f"example {self.id!r} has no answer"
        return self.answer

    @property
    def right(self) -> tuple[str, ...]:
        """All right answers; none where the data has none."""
        return () if self.answer is None else (self.answer, *self.aliases)


@dataclass(frozen=True)
class RecordsWithNotes:
    """Records, and what has to be said about how they were read, a sentence each."""

    records: Sequence[Record]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExamplesWithNotes:
    """Examples, and what has to be said about how they were read, a sentence each."""

    examples: list[Example]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A data set and how it is read.

    Attributes:
        name: as given to --task.
        summary: one line for `qredit tasks`.
        read: (source, split) → records in the official schema, perhaps with notes; the source is a path on disk, a data
            set id, or None.
        render: (record, style) → example. "cold" is the linearised input alone; "warm" adds a task description and an
            instruction about the answer's format.
        reward: name of the training reward, a key of `qredit.rewards.REGISTRY`.
        metrics: names of what evaluations show beside the training reward, keys of the same registry.
        default_data: data set id used when no source is given; None when one must be.
        sizes: examples per split in the published experiments; see `subset`.
        single_answer: whether each example has exactly one right answer, in as many texts as `aliases` holds. Where it
            has not, the likelihood of its `answer` is no measure of success, and is not trained.
        with_passages: makes the same task with other passages in its prompts; None where a prompt has no passages.
        decompose: from a record to those of the sub-questions that lead to its answer, in their order and in the same
            schema, none where it tells none; None where records of the task never do.
    """

    name: str
    summary: str
    read: Callable[[str | None, Split], Iterable[Record] | RecordsWithNotes]
    render: Callable[[Record, Style], Example]
    reward: str = "exact_match"
    metrics: tuple[str, ...] = ("exact_match",)
    default_data: str | None = None
    sizes: Mapping[Split, int] = field(default_factory=dict)
    single_answer: bool = True
    with_passages: "Callable[[Passages], Task] | None" = None
    decompose: Callable[[Record], Sequence[Record]] | None = None

    def show_passages(self, passages: Passages) -> "Task":
        """The task whose prompts show these passages: all of a record's, those that the answer rests on, or none.

        Raises:
            QreditError: other passages than all, and the prompts of this task have none to choose from.
        """
        if passages == "all":
            return self
        if self.with_passages is None:
            raise QreditError(f"passages '{passages}': the prompts of task {self.name} have no passages to choose from")
        return self.with_passages(passages)

    def load(self, source: str | None, split: Split, style: Style, limit: int | None = None) -> list[Example]:
        """The examples of `loaded`, without its notes.

        Args:
            source: folder or file of the records; None where the task makes its own.
            split: train, validation or test.
            style: cold (the question alone) or warm (with an instruction).
            limit: how many at most; None is all.
        """
        return self.loaded(source, split, style, limit).examples

    def loaded(self, source: str | None, split: Split, style: Style, limit: int | None = None) -> ExamplesWithNotes:
        """The examples of a split, in the order of the hash of their id, and what has to be said of them.

        Rows that only repeat an earlier one (the same id and, in `normalize_text`, the same texts) are dropped, with a
        count. A question with several answers is kept with each of them, with a count.

        Args:
            source: a path on disk or a data set id; None takes `default_data`.
            split: train, validation or test.
            style: cold (the question alone) or warm (with an instruction).
            limit: keep the first that many in hash order.

        Raises:
            QreditError: no source, a record that lacks a field, an empty answer, text that no tokenizer reads, or
                different rows with the same id (all of them counted, the first named).
        """
        rows = self.read(source or self.default_data, split)
        records, notes = (rows.records, rows.notes) if isinstance(rows, RecordsWithNotes) else (rows, ())
        examples = [replace(self.render(record, style), place=record.get(PLACE_KEY, "")) for record in records]
        kept = check_examples(self.name, examples)
        said = (*notes, *kept.notes, *_note_conflicting_answers(kept.examples))
        return ExamplesWithNotes(sort_by_hash(kept.examples)[:limit], said)


def check_examples(name: str, examples: Sequence[Example]) -> ExamplesWithNotes:
    """The examples without those that only repeat an earlier one, in their order, and a note of how many did.

    Args:
        name: of their task, for errors.
        examples: with the places that they were read from.

    Raises:
        QreditError: an empty answer, text that no tokenizer reads, or different examples with the same id.
    """
    _check_texts(name, examples)
    return _without_repeats(name, examples)


def _check_texts(name: str, examples: Sequence[Example]) -> None:
    empty = [example for example in examples if example.answer is not None and not example.answer.strip()]
    if empty:
        first = empty[0].place or f"'{empty[0].id}'"
        raise QreditError(f"{name}: {len(empty)} of {len(examples)} answers are empty, first in {first}")
    for example in examples:
        parts = {"prompt": example.prompt, "answer": list(example.right[:1]), "aliases": list(example.aliases)}
        for part, value in {**parts, "id": example.id}.items():
            if bad := find_unreadable(value):
                raise QreditError(f"{example.place or name}: the {part} holds {bad}")


def _without_repeats(name: str, examples: Sequence[Example]) -> ExamplesWithNotes:
    """The examples without those that repeat an earlier one of the same id, and how many do."""
    kept: dict[str, Example] = {}
    repeats: list[Example] = []
    clashes: list[tuple[Example, Example]] = []
    for example in examples:
        first = kept.setdefault(example.id, example)
        if first is not example:
            if _form(first) == _form(example):
                repeats.append(example)
            else:
                clashes.append((first, example))
    if clashes:
        first, other = clashes[0]
        places = f" ({first.place}; {other.place})" if first.place else ""
        raise QreditError(
            f"{name}: {len(clashes)} ids occur more than once with different rows, first '{first.id}'{places}"
        )
    said = f"{len(repeats)} rows repeat an earlier one and are left out, first {repeats[0].place}" if repeats else ""
    return ExamplesWithNotes([*kept.values()], tuple(filter(None, (said,))))


def _note_conflicting_answers(examples: Sequence[Example]) -> list[str]:
    """A note where the same question has different answers."""
    first: dict[str, Example] = {}
    pairs = []
    for example in examples:
        other = first.setdefault(normalize_prompt(example.prompt), example)
        if other is not example and _form(other)[1:2] != _form(example)[1:2]:
            pairs.append((other, example))
    if not pairs or not pairs[0][0].place:
        return []
    places = f"{pairs[0][0].place} and {pairs[0][1].place}"
    return [f"{len(pairs)} questions are asked again with another answer, first {places}; each row is kept"]


def _form(example: Example) -> tuple[str, ...]:
    return (normalize_prompt(example.prompt), *map(normalize_text, example.right))


def hash_id(id: str) -> str:
    """SHA-256 of an id, in hexadecimal: what subsets and carved splits are ordered by."""
    return hashlib.sha256(id.encode()).hexdigest()


def sort_by_hash(examples: Sequence[Example]) -> list[Example]:
    """The examples by SHA-256 of their id: our deterministic rule for subsets, whatever order the files are in.

    The published experiments give the sizes of their subsets (`Task.sizes`) but no rule, so theirs cannot be rebuilt.
    """
    return sorted(examples, key=lambda example: hash_id(example.id))
