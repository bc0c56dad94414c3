"""What every pocket task is made of: scenes drawn from a seed, and splits that share no fact.

A scene is one context with every question that can be asked of it. A task asks one of them; pretraining asks several,
and needs the statements that a model could think of instead of the right ones.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

from qredit.tasks.base import Example, Record, Split, Style, Task
from qredit.utils.errors import QreditError

SIZES: Mapping[Split, int] = {"train": 4096, "validation": 512, "test": 1024}
_SPLITS: tuple[Split, ...] = ("validation", "test", "train", "train", "train", "train", "train", "train")


@dataclass(frozen=True)
class Statement:
    """A rationale and the answer that it ends in."""

    text: str
    answer: str


@dataclass(frozen=True)
class Scene:
    """One context with all its questions.

    Attributes:
        records: one per question, in an official schema.
        statements: single statements about the context, each with what it would have one answer.
    """

    records: tuple[Record, ...]
    statements: tuple[Statement, ...]


SceneDraw = Callable[[random.Random, Split], Scene]
Render = Callable[[Record, Style], Example]


def assign_split(fact: Iterable[str]) -> Split:
    """The split that a chain of names, or a row of a table, belongs to, by SHA-256 of its words: 1 in 8 validation, 1
    in 8 test, the rest train.

    Every chain or row of a scene is drawn from the scene's split, so that no two splits share one, asked for or not. A
    single sentence, one hop of a chain, may well stand in two splits.
    """
    return _SPLITS[hashlib.sha256("\n".join(fact).encode()).digest()[0] % len(_SPLITS)]


def draw_scenes(draw: SceneDraw, split: Split, seed: int | str) -> Iterator[Scene]:
    """Scenes of a split without end, a function of `seed`.

    Args:
        draw: makes a scene from a random generator.
        split: train, validation or test.
        seed: all scenes are a function of it.
    """
    rng = random.Random(f"{split} {seed}")
    while True:
        yield draw(rng, split)


def make_reader(name: str, draw: SceneDraw) -> Callable[[str | None, Split], Iterable[Record]]:
    """`Task.read` of a generated task: one question of each scene, `SIZES` of them per split, always the same ones.

    The function it returns raises QreditError when it is given a source, since there is nothing to read.
    """

    def read(source: str | None, split: Split) -> Iterable[Record]:
        refuse_source(name, source)
        return draw_records(split, SIZES[split])

    @cache  # a run asks for the same split several times: to train, to check, to validate
    def draw_records(split: Split, count: int) -> tuple[Record, ...]:
        ask = random.Random(f"ask {split}")
        scenes = islice(draw_scenes(draw, split, seed=0), count)
        return tuple(ask.choice(scene.records) for scene in scenes)

    return read


def refuse_source(name: str, source: str | None) -> None:
    """Refuse data for a task that makes its own.

    Raises:
        QreditError: there is a source.
    """
    if source is not None:
        raise QreditError(f"{name} is generated and reads no data; leave out '{source}'")


def make_record_id(name: str, content: Iterable[str]) -> str:
    """An id that is a function of what the record says."""
    return f"{name}-{hashlib.sha256(chr(10).join(content).encode()).hexdigest()[:16]}"


def build_pocket_prompt(style: Style, instruction: str, context: Iterable[str], question: str) -> str:
    """Lines of context and the question, which is the last line; "warm" puts the instruction in front.

    Args:
        style: cold (the question alone) or warm (with an instruction).
        instruction: the wording of a warm prompt.
        context: its lines.
        question: its text.
    """
    return "\n".join([*([instruction] if style == "warm" else []), *context, question])


@dataclass(frozen=True, kw_only=True)
class PocketTask(Task):
    """A task whose records are generated.

    Attributes:
        draw: (generator, split) → a scene; what `read` asks one question of, and what pretraining draws from.
    """

    draw: SceneDraw


def make_pocket_task(
    name: str,
    summary: str,
    draw: SceneDraw,
    render: Render,
    metrics: tuple[str, ...],
    decompose: Callable[[Record], Sequence[Record]] | None = None,
) -> PocketTask:
    """The task of `SIZES` records per split, each a question about a scene of its own.

    Args:
        name: of the task.
        summary: in one line.
        draw: makes a scene from a random generator.
        render: a scene as an example.
        metrics: names of its rewards.
        decompose: as `Task` has it.
    """
    return PocketTask(
        name=name,
        summary=summary,
        read=make_reader(name, draw),
        render=render,
        metrics=metrics,
        sizes=SIZES,
        decompose=decompose,
        draw=draw,
    )
