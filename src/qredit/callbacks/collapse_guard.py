"""The collapse guard: a callback that watches success and validations, and does what it was asked to when they fall."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from qredit.control.collapse import CollapseDetector, DetectedCollapse, ValidationResult, restore_detector
from qredit.control.diagnostics import get_q
from qredit.core.objective import Objective
from qredit.engine.checkpoint import find_damage, list_checkpoints, step_of
from qredit.engine.protocols import RevertibleRun
from qredit.engine.run_state import GUARD, load_state
from qredit.objectives import REGISTRY
from qredit.utils.errors import QreditError
from qredit.utils.former_names import former_names

__all__ = ["CollapseGuard"]

Action = Literal["stop", "roll_back", "paft"]
LEARNING_RATE_FACTOR = 0.5
"""The learning rate after a roll-back, as a share of that before it: the same steps would lead to the same end."""
_MAX_ACTIONS: Mapping[str, int] = {"roll_back": 3, "paft": 1}
PAFT_Q = 0.75
"""q of PAFT where GARL collapses, as the method's authors advise."""


class CollapseGuard(TrainerCallback):  # type: ignore[misc]
    """On a collapse (`qredit.control.collapse`), restores the best checkpoint, if there is one, and then

    - "stop": ends the run;
    - "roll_back": goes on at half the learning rate, three times at most, then ends the run;
    - "paft": goes on with `paft(q=0.75)`; a second collapse ends the run.

    It watches validations where there are any, and always the groups' mean likelihood, or their mean reward where the
    objective reads no likelihood. The best checkpoint is that of the best validation, else the last one whose steps
    were as good as the best, within their error; `save_total_limit` does not delete it. Give it to the trainer among
    its `callbacks`.

    Args:
        action: what to do.

    Attributes:
        done: what was done: step, change and reason.
        ended: whether it ended the run.
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
        objective = run.objective.at(0.0)
        if self.action == "paft" and (get_q(objective) is None or objective.draws):
            raise QreditError(f"guard=paft takes over from GARL, such as garl(q=0.75); this is {run.objective}")
        run.check_revertible(slower=self.action == "roll_back")
        self.run = run

    def now(self) -> Objective | None:
        """The objective that took over, once one did."""
        if not self.instead:
            return None
        proposal = None if self.run is None else self.run.objective.proposal  # rollouts go on to be drawn as they were
        return REGISTRY["paft"](PAFT_Q, proposal=proposal)

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

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run is None or self.run.step_success is None:
            return
        self.watch, fallen = self.watch.observe(state.global_step, self.run.step_success)
        if self._validation is not None:
            self.watch, worse = self.watch.check(self._validation)
            fallen, self._validation = fallen or worse, None
        if fallen is not None:
            self._act(
                self.run, fallen, self._checkpoint(self.run, Path(args.output_dir), state), state.global_step, control
            )
        self._keep(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(state, control)

    def _keep(self, state: Any, control: Any) -> None:
        """Remember a good checkpoint as the one that rotation must not delete.

        A step's groups were sampled by the weights before it: what is saved now is judged by the next step.
        """
        if self.watch.good and self.saved is not None and self.saved < state.global_step:
            self.good = self.saved
        if control.should_save:
            self.saved = state.global_step
        if self.good is not None and state.best_metric is None:  # no validation has chosen one
            state.best_global_step = self.good

    def _act(self, run: RevertibleRun, fallen: DetectedCollapse, best: Path | None, step: int, control: Any) -> None:
        if best is not None:
            run.restore_weights(best)
            self.saved = None  # what was saved last are weights that were given up: no later step speaks for them
        again = best is not None and self.action != "stop" and len(self.done) < _MAX_ACTIONS[self.action]
        if not again:
            self.ended = control.should_training_stop = True
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

    def _checkpoint(self, run: RevertibleRun, output: Path, state: Any) -> Path | None:
        """The best checkpoint, or the newest whole one before it; the main process chooses, for all."""
        wanted = state.best_global_step or self.good  # the former is the one that rotation keeps
        found = (
            path
            for path in list_checkpoints(output)
            if wanted and step_of(path) <= wanted and find_damage(path) is None
        )
        names = [path.name if (path := next(found, None)) is not None else None]
        name = run.collective.gather(names)[0]
        return None if name is None else output / str(name)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        names = ("instead", "done", "ended", "saved", "good")
        return {"watch": self.watch.state(), **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a `state_dict`."""
        self.watch, self.instead = restore_detector(state["watch"]), state["instead"]
        self.done, self.ended = list(state["done"]), state["ended"]
        self.saved, self.good = state["saved"], state["good"]


def has_guard_ended_run(checkpoint: Path) -> bool:
    """Whether the guard had ended the run when this checkpoint was written: there is nothing to go on with."""
    guard = (load_state(checkpoint) or {}).get(GUARD)
    return guard is not None and bool(guard["ended"])


__getattr__ = former_names(__name__, {"Guard": "CollapseGuard"})
