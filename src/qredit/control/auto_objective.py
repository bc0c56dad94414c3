"""Objectives whose q is left to the run, `garl(q=auto())`, and what they are at a given estimator and q."""

from dataclasses import fields, is_dataclass

from qredit.control.controller import Estimator
from qredit.control.diagnostics import get_q
from qredit.core.chain import named_stages
from qredit.core.objective import Objective
from qredit.core.schedule import auto, replace_schedules
from qredit.objectives import REGISTRY
from qredit.utils.errors import QreditError


def find_auto(objective: Objective) -> auto | None:
    """The `auto` in an objective; None where it has none.

    Raises:
        QreditError: it stands for something else than the q of GARL or PAFT, or there are several that differ.
    """
    found = {
        (f.name, value)
        for part in (*(stage for _, stage in named_stages(objective.source)), *objective.penalties, objective.surrogate)
        for f in (fields(part) if is_dataclass(part) else ())
        if isinstance(value := getattr(part, f.name), auto)
    }
    if not found:
        return None
    name, value = next(iter(found))
    if len(found) > 1 or name != "q" or get_q(replace_auto(objective, 0.5)) is None:
        raise QreditError(f"{objective}: auto() stands for the q of garl or paft, as in garl(q=auto())")
    return value


def replace_auto(objective: Objective, q: float) -> Objective:
    """The objective with its `auto` replaced by a number; other schedules stay."""
    return replace_schedules(objective, lambda schedule: q if isinstance(schedule, auto) else schedule)


def can_switch_to_paft(objective: Objective) -> bool:
    """Whether PAFT can take its place: it is GARL and nothing else."""
    found = find_auto(objective)
    return found is not None and objective == REGISTRY["garl"](q=found, proposal=objective.proposal)


def resolve_objective(objective: Objective, estimator: Estimator, q: float) -> Objective:
    """The objective that a controller asks for.

    Args:
        objective: holds `auto()` in place of q.
        estimator: garl or paft.
        q: commitment, 0 … 1.
    """
    if not can_switch_to_paft(objective):
        return replace_auto(objective, q)
    return REGISTRY[estimator](q, proposal=objective.proposal)
