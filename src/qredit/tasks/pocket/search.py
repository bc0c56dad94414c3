"""Pocket questions asked alone: their facts are documents to be searched for, among facts of other scenes."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import cast

from qredit.tasks.base import Example, Record, Split, Style
from qredit.tasks.pocket.scene import PocketTask, build_pocket_prompt, draw_scenes

COLUMN = "documents"
DOCUMENTS = 24
OTHER_SCENES = 256
INSTRUCTION = (
    "Search for facts: write search(WORDS), and read what is found. Two or three searches may be needed, one in each "
    "turn. In the last turn answer with the name alone."
)


def make_search_task(task: PocketTask) -> PocketTask:
    """The task with its questions asked alone. Its facts stand in the column `COLUMN`, among distractors.

    These are `DOCUMENTS` in all. Distractors are facts of other scenes of the split. Each name is the subject of one
    document at most, so that no two contradict each other.

    Args:
        task: whose prompts are facts, one per line, and a question in the last line.
    """

    @cache  # a run asks for the same split several times
    def read(source: str | None, split: Split) -> tuple[Record, ...]:
        others, records = _draw_other_facts(task, split), cast(Iterable[Record], task.read(source, split))
        return tuple({**record, COLUMN: _draw_documents(task, record, others)} for record in records)

    def render(record: Record, style: Style) -> Example:
        example = task.render(record, "cold")
        *_, question = _lines(example)
        return replace(
            example,
            prompt=build_pocket_prompt(style, INSTRUCTION, (), question),
            columns={COLUMN: list(record[COLUMN])},
        )

    return replace(task, read=read, render=render)


def _lines(example: Example) -> Sequence[str]:
    assert isinstance(example.prompt, str)
    return example.prompt.split("\n")


def _draw_other_facts(task: PocketTask, split: Split) -> tuple[str, ...]:
    scenes = islice(draw_scenes(task.draw, split, seed="distractors"), OTHER_SCENES)
    return tuple(statement.text for scene in scenes for statement in scene.statements)


def _draw_documents(task: PocketTask, record: Record, others: Sequence[str]) -> tuple[str, ...]:
    """The facts of a record among others, in an order that tells nothing; a function of the record's id."""
    example = task.render(record, "cold")
    *facts, _ = _lines(example)
    rng = random.Random(f"documents of {example.id}")
    found = {_subject(fact): fact for fact in facts}
    for fact in rng.sample(others, 4 * DOCUMENTS):
        if len(found) < DOCUMENTS:
            found.setdefault(_subject(fact), fact)
    documents = [*found.values()]
    rng.shuffle(documents)
    return tuple(documents)


def _subject(fact: str) -> str:
    return fact.split(" ", 1)[0]
