"""Which checkpoint of verl a run goes on from, and what ours remembers beside it of verl's model."""

import os
from pathlib import Path
from typing import Any

from qredit.engine.model_identity import describe_model

MARKER = "latest_checkpointed_iteration.txt"


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
