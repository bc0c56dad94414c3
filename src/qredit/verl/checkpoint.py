"""verl's checkpoints: which one a run goes on from or back to, and what ours remembers beside it of verl's model."""

import os
from pathlib import Path
from typing import Any

from qredit.engine.identified_state import FILE
from qredit.engine.model_identity import describe_model
from qredit.utils.errors import QreditError

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


def find_newest_before(folder: Path, step: int) -> Path | None:
    """The newest whole checkpoint of verl's in a folder that is of this step or of an earlier one.

    Args:
        folder: of the run.
        step: the last one that counts.
    """
    found = sorted((int(path.name.rpartition("_")[2]), path) for path in folder.glob("global_step_*"))
    # of a checkpoint ours is written first, and the data's place last
    whole = [path for number, path in found if number <= step and all((path / n).is_file() for n in (FILE, "data.pt"))]
    return whole[-1] if whole else None


def check_revertible(config: Any) -> None:
    """Refuse options of verl's under which a guard could not go back to a checkpoint.

    Raises:
        QreditError: names the option.
    """
    trainer, kept = config.trainer, config.actor_rollout_ref.actor.checkpoint
    whole = {"model", "optimizer", "extra"} <= set(kept.save_contents) & set(kept.load_contents)
    for name, fits, wanted in (
        ("trainer.save_freq", trainer.save_freq > 0, "at least 1"),
        ("trainer.max_actor_ckpt_to_keep", trainer.max_actor_ckpt_to_keep is None, "null"),
        ("trainer.del_local_ckpt_after_load", not trainer.del_local_ckpt_after_load, "false"),
        ("actor_rollout_ref.actor.checkpoint.async_save", not kept.async_save, "false"),
        ("actor_rollout_ref.actor.checkpoint.save_contents", whole, "model, optimizer and extra"),
    ):
        if not fits:
            raise QreditError(f"{name} must be {wanted}: qredit.guard goes back to earlier checkpoints")
