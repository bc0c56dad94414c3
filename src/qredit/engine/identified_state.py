"""The small state of a run in a file that says whose it is: no run of another objective or model goes on from it.

For trainers whose checkpoints are written by others, into a folder of their own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qredit.core.objective import Objective
from qredit.utils.atomic_files import write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.stateful import Stateful

FILE = "qredit.json"


def write_state(folder: Path, objective: Objective, model: Mapping[str, str], parts: Sequence[Stateful]) -> None:
    """Keep the state of a run's parts.

    Args:
        folder: of the checkpoint.
        objective: of the run.
        model: what `describe_model` says of its model.
        parts: what has a state.
    """
    state = {part.name: part.state_dict() for part in parts}
    told = {"objective": str(objective), "expansion": objective.expansion, **model, **state}
    write_text_atomic(folder / FILE, json.dumps(told, indent=1) + "\n")


def read_state(folder: Path, objective: Objective, model: Mapping[str, str]) -> Mapping[str, Any]:
    """What `write_state` kept, for a run that goes on: the state of each part by its name.

    Args:
        folder: of the checkpoint.
        objective: of the run.
        model: what `describe_model` says of its model.

    Raises:
        QreditError: the checkpoint is none of ours, or of another objective, model or tokenizer.
    """
    try:
        told: Mapping[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise QreditError(f"{folder} is no checkpoint of qredit: it has no readable {FILE}") from None
    if told["expansion"] != objective.expansion:
        raise QreditError(f"{folder} was trained with {told['objective']}, not with {objective}; give another folder")
    for name, value in model.items():
        if told.get(name) != value:
            raise QreditError(f"{folder} was trained with another {name} ({told.get(name)}, not {value})")
    return told
