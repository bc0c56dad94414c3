"""Data sets, one per file, and the registry the command line reads."""

from collections.abc import Mapping
from types import MappingProxyType

from qredit.tasks.base import Example, Task
from qredit.tasks.finqa import FINQA
from qredit.tasks.gsm8k import GSM8K
from qredit.tasks.hotpotqa import HOTPOTQA
from qredit.tasks.jsonl import JSONL
from qredit.tasks.musique import MUSIQUE
from qredit.tasks.pocket.dial import POCKET_DIAL
from qredit.tasks.pocket.finqa import POCKET_FINQA
from qredit.tasks.pocket.hotpot import POCKET_HOTPOT
from qredit.tasks.pocket.musique import POCKET_MUSIQUE
from qredit.utils.errors import look_up

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


def get(name: str) -> Task:
    """The task of that name.

    Raises:
        QreditError: there is none.
    """
    return look_up("task", name, REGISTRY)


__all__ = ["REGISTRY", "Example", "Task", "get"]
