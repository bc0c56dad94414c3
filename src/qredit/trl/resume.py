"""What a run must remember beside TRL's checkpoint to go on as if never stopped, and how it is stored."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.objective import Credited
from qredit.rollouts.collate import Rows
from qredit.trl.step.whole_step import Generation, Microbatch

STATE = "qredit_state.json"
GUIDE, GUARD = "guide", "guard"
FORMER = {"Guide": GUIDE, "Guard": GUARD}
"""Keys of the state that files of former versions hold, and what they are called now."""


def rollouts_file(process: int) -> str:
    """Name of the file that holds a process's rollouts in use."""
    return f"rollouts_{process}.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the run's small state as JSON."""
    (folder / STATE).write_text(json.dumps(state, indent=1))


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state written by `save_state`, former keys under today's; None when the checkpoint is not ours."""
    path = folder / STATE
    if not path.exists():
        return None
    return {FORMER.get(key, key): value for key, value in json.loads(path.read_text()).items()}


def save_generation(path: Path, generation: Generation) -> None:
    """Write the rollouts in use as plain tensors, numbers and names."""
    torch.save(
        {
            "microbatches": [_packed(micro) for micro in generation.microbatches],
            "denominators": [dict(counts) for counts in generation.denominators],
            "made_at": generation.made_at,
        },
        path,
    )


def load_generation(path: Path, device: torch.device) -> Generation | None:
    """The rollouts written by `save_generation`; None when the save did not fall inside a generation."""
    if not path.exists():
        return None
    stored = torch.load(path, map_location=device, weights_only=True)
    microbatches = [_unpacked(packed) for packed in stored["microbatches"]]
    return Generation(microbatches, stored["denominators"], stored["made_at"])


def _packed(micro: Microbatch) -> dict[str, Any]:
    batch = {f.name: getattr(micro.rows.batch, f.name) for f in dataclasses.fields(RolloutBatch)}
    credited: dict[str, Any] | None = None
    if micro.credited is not None:
        credited = {f.name: getattr(micro.credited, f.name) for f in dataclasses.fields(Credited)}
    rows = {f.name: getattr(micro.rows, f.name) for f in dataclasses.fields(Rows) if f.name != "batch"}
    return {"batch": batch, "credited": credited} | rows


def _unpacked(packed: dict[str, Any]) -> Microbatch:
    credited = None if packed["credited"] is None else Credited(**packed["credited"])
    rest = {name: value for name, value in packed.items() if name not in ("batch", "credited")}
    return Microbatch(Rows(batch=RolloutBatch(**packed["batch"]), **rest), credited)
