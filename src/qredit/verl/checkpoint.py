"""What of ours a checkpoint of verl holds: qredit.json beside the actor's weights, written before verl's marker."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qredit.core.objective import Objective
from qredit.engine.model_identity import describe_model
from qredit.utils.atomic_files import write_text_atomic
from qredit.utils.errors import QreditError

FILE, MARKER = "qredit.json", "latest_checkpointed_iteration.txt"


def write_state(folder: Path, objective: Objective, model: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Keep what a run has beside verl's own state.

    Args:
        folder: of the checkpoint, global_step_N.
        objective: of the run.
        model: what `describe_model` says of its model.
        state: of its stateful stages.
    """
    told = {"objective": str(objective), "expansion": objective.expansion, **model, "stages": state}
    write_text_atomic(folder / FILE, json.dumps(told, indent=1) + "\n")


def read_state(folder: Path, objective: Objective, model: Mapping[str, str]) -> Mapping[str, Any]:
    """The state of the stages of a run that goes on.

    Args:
        folder: of the checkpoint.
        objective: of the run.
        model: what `describe_own` says of its model.

    Raises:
        QreditError: the checkpoint is none of ours, or of another objective, model or tokenizer.
    """
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise QreditError(f"{folder} is no checkpoint of qredit: it has no readable {FILE}") from None
    if told["expansion"] != objective.expansion:
        raise QreditError(f"{folder} was trained with {told['objective']}, not with {objective}; give another folder")
    for name, value in model.items():
        if told.get(name) != value:
            raise QreditError(f"{folder} was trained with another {name} ({told.get(name)}, not {value})")
    stages: Mapping[str, Any] = told["stages"]
    return stages


def describe_own(model: Any, tokenizer: Any) -> dict[str, str]:
    """What a checkpoint remembers of verl's model options and of a tokenizer."""
    from transformers import AutoConfig

    own = {"trust_remote_code": bool(model.get("trust_remote_code", False))}
    config = AutoConfig.from_pretrained(os.path.expanduser(str(model.path)), **own)
    return describe_model(config.to_dict(), tokenizer)


def find_resumed(trainer: Any) -> Path | None:
    """The checkpoint that a run will go on from, by verl's rules; None where it begins anew.

    Args:
        trainer: verl's options of that name.
    """
    if trainer.resume_mode == "resume_path":
        return Path(str(trainer.resume_from_path))
    marker = Path(str(trainer.default_local_dir)) / MARKER
    if trainer.resume_mode != "auto" or not marker.is_file():
        return None
    return marker.parent / f"global_step_{marker.read_text().strip()}"
