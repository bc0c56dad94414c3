"""The rollouts in use as a checkpoint holds them: plain tensors, numbers and names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from qredit.core.batch import RolloutBatch
from qredit.core.field_names import FORMER_NAMES, REFERENCE
from qredit.core.objective import Credited
from qredit.engine.generation import Generation, Microbatch
from qredit.rollouts.collate import Rows


def serialize_generation(generation: Generation) -> dict[str, Any]:
    """A generation, for `torch.save`."""
    return {
        "microbatches": [_packed(micro) for micro in generation.microbatches],
        "denominators": [dict(counts) for counts in generation.denominators],
        "made_at": generation.made_at,
    }


def deserialize_generation(stored: Mapping[str, Any]) -> Generation:
    """The generation that was `serialize_generation`."""
    microbatches = [_unpacked(micro) for micro in stored["microbatches"]]
    return Generation(microbatches, stored["denominators"], stored["made_at"])


def _packed(micro: Microbatch) -> dict[str, Any]:
    batch = {f.name: getattr(micro.rows.batch, f.name) for f in dataclasses.fields(RolloutBatch)}
    credited: dict[str, Any] | None = None
    if micro.credited is not None:
        credited = {f.name: getattr(micro.credited, f.name) for f in dataclasses.fields(Credited)}
    rows = {f.name: getattr(micro.rows, f.name) for f in dataclasses.fields(Rows) if f.name != "batch"}
    batch["extra"] = dict(batch["extra"])  # a kind that `torch.load` knows
    return {"batch": batch, "credited": credited} | rows


def _unpacked(stored: Mapping[str, Any]) -> Microbatch:
    credited = None if stored["credited"] is None else Credited(**stored["credited"])
    rest = {name: value for name, value in stored.items() if name not in ("batch", "credited")}
    if "reference_hidden" in rest:  # former versions knew no other teacher
        hidden = rest.pop("reference_hidden")
        rest["teacher_hidden"] = {} if hidden is None else {REFERENCE: hidden}
    batch = dict(stored["batch"])
    batch["extra"] = {FORMER_NAMES.get(name, name): value for name, value in batch["extra"].items()}
    return Microbatch(Rows(batch=RolloutBatch(**batch), **rest), credited)
