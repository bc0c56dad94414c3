"""Guide and guard of a run whose engine has no callbacks of ours: told of each step, they say how it goes on."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qredit.callbacks.auto_q import AutoQ
from qredit.callbacks.collapse_response import Action, CollapseResponse
from qredit.callbacks.decisions import merge_decisions
from qredit.control.auto_objective import find_auto
from qredit.core.batch import RolloutBatch
from qredit.core.objective import Objective
from qredit.engine.current_objective import CurrentObjective
from qredit.engine.protocols import ObjectiveOverride, RevertibleRun
from qredit.engine.step_log import StepLog
from qredit.stats.interval import Interval


class Steering:
    """What may change a run while it goes on.

    Args:
        run: the one that is steered.
        action: what its guard does about a collapse; None is no guard.

    Attributes:
        guide: chooses q, where the objective leaves it to the run.
        guard: watches for a collapse, where it was asked to.
        overrides: those of the two that there are; their state is part of a checkpoint.

    Raises:
        QreditError: as `CollapseResponse.attach`.
    """

    def __init__(self, run: RevertibleRun, action: Action | None) -> None:
        self.given = run.objective
        self.guide = AutoQ(self.given) if find_auto(self.given) is not None else None
        self.guard = None if action is None else CollapseResponse(action)
        self.overrides: list[ObjectiveOverride] = [one for one in (self.guide, self.guard) if one is not None]
        if self.guard is not None:
            self.guard.attach(run)

    def now(self) -> Objective:
        """The objective of the next step, with its schedules."""
        return CurrentObjective(self.given, self.overrides).now()

    @property
    def ended(self) -> bool:
        """Whether the guard ended the run."""
        return self.guard is not None and self.guard.ended

    @property
    def learning_rate_share(self) -> float:
        """What the guard has left of the learning rate."""
        return 1.0 if self.guard is None else self.guard.learning_rate_share

    def look(self, batch: RolloutBatch, m: int, log: StepLog) -> None:
        """Choose q before any update: the first rollouts are looked at, and an own look would need more of them.

        Args:
            batch: the first scored rollouts.
            m: rollouts of a prompt.
            log: of the run, with nothing in it.
        """
        if self.guide is not None and not self.guide.begun:
            log.add(self.guide.now().at(0.0), batch)
            self.guide.begin(log.take(), m)

    def end_step(self, step: int, facts: Mapping[str, Tensor], saves: bool) -> dict[str, float]:
        """Tell of a step; the guard acts at once.

        Args:
            step: of the run.
            facts: what its groups showed.
            saves: whether its weights are written into a checkpoint now.

        Returns:
            What is logged of it.
        """
        replaced = self.guard is not None and self.guard.instead
        found = {}
        if self.guide is not None:
            found["guide/paft"] = float(replaced or self.guide.estimator == "paft")
            if not replaced:
                self.guide.observe(step, facts)
        if self.guard is not None:
            self.guard.end_step(step, saves)
        return found

    def check(self, step: int, success: Interval) -> None:
        """Tell of a validation.

        Args:
            step: of the run, when it was validated.
            success: p@1.
        """
        if self.guard is not None:
            self.guard.check(step, success.value, success.low, success.high)

    def list_decisions(self) -> list[dict[str, Any]]:
        """What was decided so far, in order."""
        return merge_decisions(self.overrides)
