"""Questions as subgoals: sub-questions that lead to an answer, or what is left behind the first steps of a rationale.

Each example has the columns `difficulty`, how many steps are left, and `question_id`, that of the whole question.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from qredit.tasks.base import Example, Record, Style, Task
from qredit.tasks.prompt_text import append_to_prompt
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import to_one_line

DIFFICULTY, QUESTION_ID, RECORD = "difficulty", "question_id", "record"


def show_beginnings(example: Example, steps: Sequence[str], lead: str) -> list[Example]:
    """The question behind its first 0, 1, … steps, all but the last: K - k of K are left of the one that shows k.

    Args:
        example: the question; its columns go along.
        steps: of its rationale, with the white space around them.
        lead: text between the prompt and the first step.
    """
    shown = ["", *(f"{lead}{beginning.strip()}" for beginning in accumulate(steps[:-1]))]
    return [
        replace(
            example,
            prompt=append_to_prompt(example, text),
            id=f"{example.id}:{number}" if number else example.id,
            columns={**example.columns, DIFFICULTY: len(steps) - number, QUESTION_ID: example.id},
        )
        for number, text in enumerate(shown)
    ]


def keep_records(task: Task) -> Task:
    """The task whose examples have the record that they were rendered from as their one column, `RECORD`.

    Args:
        task: whose records are kept.
    """

    def render(record: Record, style: Style) -> Example:
        return replace(task.render(record, style), columns={RECORD: record})

    return replace(task, render=render)


def get_decompose(task: Task) -> Callable[[Record], Sequence[Record]]:
    """What tells the sub-questions of the task's records.

    Raises:
        QreditError: they have none.
    """
    if task.decompose is None:
        raise QreditError(f"questions of task {task.name} tell no sub-questions, as those of musique do")
    return task.decompose


def ask_subquestions(whole: Example, hops: Sequence[Example]) -> list[Example]:
    """The sub-questions of a question, a step each, then the question, as many as it has.

    Args:
        whole: the question.
        hops: its sub-questions, in their order.
    """
    return [
        *(replace(hop, place=whole.place, columns={DIFFICULTY: 1, QUESTION_ID: whole.id}) for hop in hops),
        replace(whole, columns={DIFFICULTY: len(hops), QUESTION_ID: whole.id}),
    ]


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
