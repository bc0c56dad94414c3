"""Objectives whose q is left to the run, `garl(q=auto())`, and what they are at a given estimator and q."""

from qredit.diagnostics import commitment
from qredit.errors import QreditError
from qredit.guide.controller import Estimator
from qredit.objective import Objective
from qredit.objectives import REGISTRY
from qredit.schedule import Schedule, auto, replaced


def automatic(objective: Objective) -> auto | None:
    """The `auto` in an objective; None where it has none.

    Raises:
        QreditError: it stands for something else than the q of GARL or PAFT, or there are several that differ.
    """
    found: set[auto] = set()

    def look(schedule: Schedule) -> Schedule:
        if isinstance(schedule, auto):
            found.add(schedule)
        return schedule

    replaced(objective, look)
    if not found:
        return None
    if len(found) > 1 or commitment(at_q(objective, 0.5)) != 0.5:
        raise QreditError(f"{objective}: auto() stands for q, once, as in garl(q=auto())")
    return found.pop()


def at_q(objective: Objective, q: float) -> Objective:
    """The objective with its `auto` replaced by a number; other schedules stay."""
    return replaced(objective, lambda schedule: q if isinstance(schedule, auto) else schedule)


def may_move(objective: Objective) -> bool:
    """Whether PAFT can take its place: it is GARL and nothing else."""
    found = automatic(objective)
    return found is not None and objective == REGISTRY["garl"](q=found)


def guided(objective: Objective, estimator: Estimator, q: float) -> Objective:
    """The objective that a controller asks for."""
    return REGISTRY[estimator](q) if may_move(objective) else at_q(objective, q)
