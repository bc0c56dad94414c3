"""Data sets, one per file, and the registry the command line reads."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from qredit.tasks.base import Example, Task
from qredit.tasks.finqa import FINQA
from qredit.tasks.gsm8k import GSM8K
from qredit.tasks.hotpotqa import HOTPOTQA
from qredit.tasks.jsonl import JSONL
from qredit.tasks.musique import MUSIQUE
from qredit.tasks.path_star import make_path_star_task
from qredit.tasks.pocket.dial import POCKET_DIAL
from qredit.tasks.pocket.finqa import POCKET_FINQA
from qredit.tasks.pocket.hotpot import POCKET_HOTPOT
from qredit.tasks.pocket.musique import POCKET_MUSIQUE
from qredit.tasks.reasoning_gym import make_reasoning_gym_task
from qredit.tasks.task_call import TaskCall, parse_task_call
from qredit.utils.errors import QreditError, unknown_name_error

REGISTRY: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            *(FINQA, HOTPOTQA, MUSIQUE, GSM8K),  # official data sets
            JSONL,  # the user's own rows
            *(POCKET_HOTPOT, POCKET_MUSIQUE, POCKET_FINQA, POCKET_DIAL),  # generated: they need no data
        )
    }
)


@dataclass(frozen=True)
class TaskFamily:
    """Tasks that differ in their arguments, generated when they are asked for.

    Attributes:
        written: how one is given to --task.
        summary, judged: for `qredit tasks`.
        make: from arguments to the task. A family of named members takes the name first.
        has_members: whether a member is named behind a colon.
    """

    written: str
    summary: str
    judged: str
    make: Callable[..., Task]
    has_members: bool = False


FAMILIES: Mapping[str, TaskFamily] = MappingProxyType(
    {
        "path-star": TaskFamily(
            "path-star(degree=3, length=3, nodes=300, size=4096, seed=0, easier=[])",
            "generated: the path to the end of one arm of a star graph (arXiv 2510.03971); arguments may be left out",
            "reward: exact_match",
            make_path_star_task,
        ),
        "reasoning-gym": TaskFamily(
            "reasoning-gym:NAME(knob=value, …)",
            "generated: puzzles of the package reasoning-gym, such as reasoning-gym:chain_sum(min_terms=2)",
            "reward: the score of NAME itself; its likelihood is trained only where an entry has one right answer",
            make_reasoning_gym_task,
            has_members=True,
        ),
    }
)


def get(name: str) -> Task:
    """The task of that name, or that a call of a family makes: `path-star(degree=5, length=5)`.

    Raises:
        QreditError: there is none, or its arguments cannot be used.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    call = parse_task_call(name)
    if call.name in FAMILIES:
        return _make(FAMILIES[call.name], call)
    if call.name in REGISTRY:
        raise QreditError(f"task {call.name} takes no arguments, got '{name}'")
    raise unknown_name_error(
        "task", call.name, [*REGISTRY, *(family.written.split("(")[0] for family in FAMILIES.values())]
    )


def _make(family: TaskFamily, call: TaskCall) -> Task:
    if family.has_members != bool(call.member):
        raise QreditError(f"task '{call.text}' is written {family.written}")
    if not family.has_members:
        known = inspect.signature(family.make).parameters
        for name in call.arguments:
            if name not in known:
                raise unknown_name_error(f"argument of {call.name}", name, known)
        return family.make(**call.arguments)
    return family.make(call.member, **call.arguments)


__all__ = ["FAMILIES", "REGISTRY", "Example", "Task", "TaskFamily", "get"]
