"""The collapse guard: a callback that watches success and validations, and does what it was asked to when they fall."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from qredit.control.collapse import Checked, Collapse, Fallen, restored
from qredit.control.diagnostics import commitment
from qredit.core.objective import Objective
from qredit.engine.checkpoint import checkpoints, fault, step_of
from qredit.engine.state import GUARD, load_state
from qredit.objectives import REGISTRY
from qredit.utils.errors import QreditError

if TYPE_CHECKING:
    from qredit.trl.trainer import QreditTrainer

Action = Literal["stop", "roll_back", "paft"]
SLOWER = 0.5
"""The learning rate after a roll-back, as a share of that before it: the same steps would lead to the same end."""
_CHANCES: Mapping[str, int] = {"roll_back": 3, "paft": 1}
PAFT_COMMITMENT = 0.75
"""q of PAFT where GARL collapses, as the method's authors advise."""


class Guard(TrainerCallback):  # type: ignore[misc]
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
        validates: whether `check` will be told of validations, which then choose the best checkpoint.

    Attributes:
        done: what was done: step, change and reason.
        ended: whether it ended the run.
    """

    name = GUARD

    def __init__(self, action: Action, validates: bool = False) -> None:
        self.action, self.validates = action, validates
        self.trainer: QreditTrainer | None = None
        self.watch, self.instead = Collapse(), False
        self.done: list[dict[str, Any]] = []
        self.ended = False
        self.saved: int | None = None
        self.good: int | None = None
        self._validation: Checked | None = None

    def attach(self, trainer: "QreditTrainer") -> None:
        """Serve a trainer.

        Raises:
            QreditError: PAFT cannot take over from this objective; settings under which weights cannot be restored.
        """
        objective, args = trainer.objective.at(0.0), trainer.args
        if self.action == "paft" and (commitment(objective) is None or objective.draws):
            raise QreditError(f"guard=paft takes over from GARL, such as garl(q=0.75); this is {trainer.objective}")
        if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
            raise QreditError("the guard restores whole weights, which DeepSpeed and FSDP cut apart; leave guard out")
        if args.save_only_model:
            raise QreditError("the guard restores the optimiser's moments too, which save_only_model leaves out")
        if args.load_best_model_at_end:
            raise QreditError("the guard keeps the best checkpoint itself; leave load_best_model_at_end out")
        if self.action == "roll_back" and args.lr_scheduler_type == "reduce_lr_on_plateau":
            raise QreditError("guard=roll_back halves the rates of a schedule; reduce_lr_on_plateau has none")
        self.trainer = trainer

    def objective(self) -> Objective | None:
        """The objective that took over, once one did."""
        return REGISTRY["paft"](PAFT_COMMITMENT) if self.instead else None

    def check(self, step: int, value: float, low: float, high: float) -> None:
        """Tell of a validation: success, with its interval. What follows from it is done at the end of the step."""
        self._validation = Checked(step, value, low, high)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if trainer is None or trainer.step_success is None:
            return
        self.watch, fallen = self.watch.see(state.global_step, trainer.step_success)
        if self._validation is not None:
            self.watch, worse = self.watch.check(self._validation)
            fallen, self._validation = fallen or worse, None
        if fallen is not None:
            self._act(trainer, fallen, state.global_step, control)
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

    def _act(self, trainer: "QreditTrainer", fallen: Fallen, step: int, control: Any) -> None:
        best = self._checkpoint(trainer)
        if best is not None:
            _return_to(trainer, best)
        again = best is not None and self.action != "stop" and len(self.done) < _CHANCES[self.action]
        if not again:
            self.ended = control.should_training_stop = True
        else:
            self.instead = self.action == "paft"
            _slow_down(trainer, 1.0 if self.instead else SLOWER)
        self.watch = self.watch.after()
        self.done.append({"step": step, "change": self._told(best, again), "reason": fallen.reason})

    def _told(self, best: Path | None, again: bool) -> str:
        follows = "stopped"
        if again:
            follows = f"on with {self.objective()}" if self.instead else f"on at {SLOWER:g} of the learning rate"
        return f"{follows}, with the weights of {'now: no checkpoint was good' if best is None else best.name}"

    def _checkpoint(self, trainer: "QreditTrainer") -> Path | None:
        """The best checkpoint, or the newest whole one before it; the main process chooses, for all."""
        wanted = (trainer.state.best_global_step if self.validates else None) or self.good
        run = Path(trainer.args.output_dir)
        found = (path for path in checkpoints(run) if wanted and step_of(path) <= wanted and fault(path) is None)
        names = [path.name if (path := next(found, None)) is not None else None]
        name = broadcast_object_list(names)[0]
        return None if name is None else run / str(name)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        names = ("instead", "done", "ended", "saved", "good")
        return {"watch": self.watch.state(), **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a `state_dict`."""
        self.watch, self.instead = restored(state["watch"]), state["instead"]
        self.done, self.ended = list(state["done"]), state["ended"]
        self.saved, self.good = state["saved"], state["good"]


def was_ended(checkpoint: Path) -> bool:
    """Whether the guard had ended the run when this checkpoint was written: there is nothing to go on with."""
    guard = (load_state(checkpoint) or {}).get(GUARD)
    return guard is not None and bool(guard["ended"])


def _return_to(trainer: "QreditTrainer", folder: Path) -> None:
    """Take back the weights and the optimiser's moments of a checkpoint; training goes on from there.

    The data go on where they are, and rollouts of the weights that are given up are dropped.
    """
    trainer._load_from_checkpoint(str(folder), trainer.accelerator.unwrap_model(trainer.model_wrapped))
    moments = torch.load(folder / "optimizer.pt", map_location=trainer.accelerator.device, weights_only=True)
    trainer.optimizer.load_state_dict(moments)
    kept = load_state(folder)
    if kept is not None:
        trainer.stages.state = kept["objective_state"]
    trainer.drop_rollouts()


def _slow_down(trainer: "QreditTrainer", factor: float) -> None:
    """Multiply the learning rate of this and all later steps, by the schedule as it stands now."""
    scheduler: Any = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)  # accelerate wraps it
    scheduler.base_lrs = [factor * rate for rate in scheduler.base_lrs]
    scheduler._last_lr = [factor * rate for rate in scheduler._last_lr]
    for group, rate in zip(trainer.optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = rate
