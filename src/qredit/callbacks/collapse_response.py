"""What a run does about a collapse, whoever trains it: go back to its best checkpoint, then end or go on otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from qredit.control.collapse import CollapseDetector, DetectedCollapse, ValidationResult, restore_detector
from qredit.control.diagnostics import get_q
from qredit.core.objective import Objective
from qredit.engine.protocols import RevertibleRun
from qredit.engine.run_state import GUARD
from qredit.objectives import REGISTRY
from qredit.utils.errors import QreditError

Action = Literal["stop", "roll_back", "paft"]
LEARNING_RATE_FACTOR = 0.5
"""The learning rate after a roll-back, as a share of that before it: the same steps would lead to the same end."""
_MAX_ACTIONS: Mapping[str, int] = {"roll_back": 3, "paft": 1}
PAFT_Q = 0.75
"""q of PAFT where GARL collapses, as the method's authors advise."""


def check_takes_over(action: Action, objective: Objective) -> None:
    """Refuse an action that an objective leaves no room for.

    Raises:
        QreditError: PAFT cannot take over from it.
    """
    plain = objective.at(0.0)
    if action == "paft" and (get_q(plain) is None or plain.draws):
        raise QreditError(f"guard=paft takes over from GARL, such as garl(q=0.75); this is {objective}")


class CollapseResponse:
    """Watches success and validations, and does what it was asked to when they fall; told of each step by its engine.

    Args:
        action: what to do; see `qredit.callbacks.collapse_guard.CollapseGuard`.

    Attributes:
        done: what was done: step, change and reason.
        ended: whether it ended the run.
        good: step of the last checkpoint that was as good as the best.
    """

    name = GUARD

    def __init__(self, action: Action) -> None:
        self.action = action
        self.run: RevertibleRun | None = None
        self.watch, self.instead = CollapseDetector(), False
        self.done: list[dict[str, Any]] = []
        self.ended = False
        self.saved: int | None = None
        self.good: int | None = None
        self._validation: ValidationResult | None = None

    def attach(self, run: RevertibleRun) -> None:
        """Watch a run.

        Raises:
            QreditError: PAFT cannot take over from this objective; settings under which weights cannot be restored.
        """
        check_takes_over(self.action, run.objective)
        run.check_revertible(slower=self.action == "roll_back")
        self.run = run

    def now(self) -> Objective | None:
        """The objective that took over, once one did."""
        if not self.instead:
            return None
        proposal = None if self.run is None else self.run.objective.proposal  # rollouts go on to be drawn as they were
        return REGISTRY["paft"](PAFT_Q, proposal=proposal)

    @property
    def learning_rate_share(self) -> float:
        """What is left of the learning rate after all that was done."""
        return LEARNING_RATE_FACTOR ** len(self.done) if self.action == "roll_back" else 1.0

    def list_decisions(self) -> list[dict[str, Any]]:
        """What was done, in order."""
        return self.done

    def check(self, step: int, value: float, low: float, high: float) -> None:
        """Tell of a validation: success, with its interval. What follows from it is done at the end of the step.

        Args:
            step: of the run, when it was validated.
            value: success, 0 … 1.
            low: lower end of its 95 % interval.
            high: upper end of its 95 % interval.
        """
        self._validation = ValidationResult(step, value, low, high)

    def end_step(self, step: int, saves: bool, chosen: int | None = None) -> None:
        """Do what follows from what a step's groups showed.

        Args:
            step: of the run.
            saves: whether its weights are written into a checkpoint now.
            chosen: the step whose checkpoint is the best of the validations; None where none has chosen.
        """
        if self.run is None or self.run.step_success is None:
            return
        self.watch, fallen = self.watch.observe(step, self.run.step_success)
        if self._validation is not None:
            self.watch, worse = self.watch.check(self._validation)
            fallen, self._validation = fallen or worse, None
        if fallen is not None:
            self._act(self.run, fallen, step, chosen or self.good)
        self.remember(step, saves)

    def remember(self, step: int, saves: bool) -> None:
        """Remember a good checkpoint.

        A step's groups were sampled by the weights before it: what is saved now is judged by the next step.

        Args:
            step: of the run.
            saves: as `end_step`.
        """
        if self.watch.good and self.saved is not None and self.saved < step:
            self.good = self.saved
        if saves:
            self.saved = step

    def _act(self, run: RevertibleRun, fallen: DetectedCollapse, step: int, wanted: int | None) -> None:
        best = None if wanted is None else run.find_checkpoint(wanted)
        if best is not None:
            run.restore_weights(best)
            self.saved = None  # what was saved last are weights that were given up: no later step speaks for them
        again = best is not None and self.action != "stop" and len(self.done) < _MAX_ACTIONS[self.action]
        if not again:
            self.ended = True
        else:
            self.instead = self.action == "paft"
            run.scale_learning_rate(1.0 if self.instead else LEARNING_RATE_FACTOR)
        self.watch = self.watch.after()
        self.done.append({"step": step, "change": self._told(best, again), "reason": fallen.reason})

    def _told(self, best: Path | None, again: bool) -> str:
        follows = "stopped"
        if again:
            follows = (
                f"on with {self.now()}" if self.instead else f"on at {LEARNING_RATE_FACTOR:g} of the learning rate"
            )
        return f"{follows}, with the weights of {'now: no checkpoint was good' if best is None else best.name}"

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        names = ("instead", "done", "ended", "saved", "good")
        return {"watch": self.watch.state(), **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a `state_dict`."""
        self.watch, self.instead = restore_detector(state["watch"]), state["instead"]
        self.done, self.ended = list(state["done"]), state["ended"]
        self.saved, self.good = state["saved"], state["good"]
