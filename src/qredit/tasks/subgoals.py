"""Questions as subgoals: sub-questions that lead to an answer, or what is left behind the first steps of a rationale.

Each example has the columns `difficulty`, how many steps are left, and `question_id`, that of the whole question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from qredit.tasks.base import PLACE_KEY, Example, Record, RecordsWithNotes, Split, Style, Task
from qredit.tasks.prompt_text import append_to_prompt
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import to_one_line

DIFFICULTY, QUESTION_ID = "difficulty", "question_id"
_HOPS = "sub-questions with an answer each"


def show_beginnings(example: Example, steps: Sequence[str], lead: str) -> list[Example]:
    """The question behind its first 0, 1, … steps, all but the last: K - k of K are left of the one that shows k.

    Args:
        example: the question.
        steps: of its rationale, with the white space around them.
        lead: text between the prompt and the first step.
    """
    shown = ["", *(f"{lead}{beginning.strip()}" for beginning in accumulate(steps[:-1]))]
    return [
        replace(
            example,
            prompt=append_to_prompt(example, text),
            id=f"{example.id}:{number}" if number else example.id,
            columns={DIFFICULTY: len(steps) - number, QUESTION_ID: example.id},
        )
        for number, text in enumerate(shown)
    ]


def ask_subquestions(task: Task) -> Task:
    """The task that asks the sub-questions of each question, a step each, and the question, as many as it has.

    Args:
        task: that has `decompose`.

    Raises:
        QreditError: records of the task tell no sub-questions. Reading it: some tell none, with the first of them.
    """
    decompose = task.decompose
    if decompose is None:
        raise QreditError(f"questions of task {task.name} tell no sub-questions, as those of musique do")

    def cut(record: Record) -> Iterator[dict[str, Any]]:
        hops = decompose(record)
        known = {QUESTION_ID: record["id"], PLACE_KEY: record.get(PLACE_KEY, "")}
        yield from ({"record": hop, DIFFICULTY: 1, **known} for hop in hops)
        yield {"record": record, DIFFICULTY: len(hops), **known}

    def read(source: str | None, split: Split) -> RecordsWithNotes:
        rows = task.read(source, split)
        records, notes = (rows.records, rows.notes) if isinstance(rows, RecordsWithNotes) else (list(rows), ())
        check_all_cut([record["id"] for record in records], [bool(decompose(record)) for record in records], _HOPS)
        return RecordsWithNotes([one for record in records for one in cut(record)], notes)

    def render(one: Record, style: Style) -> Example:
        columns = {name: one[name] for name in (DIFFICULTY, QUESTION_ID)}
        return replace(task.render(one["record"], style), columns=columns)

    return replace(task, read=read, render=render)


def check_all_cut(ids: Sequence[str], cut: Sequence[bool], what: str) -> None:
    """Refuse questions that cannot be cut.

    Args:
        ids: of the questions.
        cut: whether each can be.
        what: those that cannot lack, in words.

    Raises:
        QreditError: says how many lack it, and the first.
    """
    lacking = [id for id, found in zip(ids, cut, strict=True) if not found]
    if lacking:
        raise QreditError(f"{len(lacking)} of {len(ids)} questions have no {what}, first '{to_one_line(lacking[0])}'")
