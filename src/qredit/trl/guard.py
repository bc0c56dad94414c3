"""The collapse guard: a callback that watches success and validations, and does what it was asked to when they fall."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from transformers import TrainerCallback

from qredit.errors import QreditError
from qredit.guide.collapse import Checked, Collapse, Fallen, restored
from qredit.objective import Objective
from qredit.objectives import REGISTRY
from qredit.trl.checkpoint import checkpoints, fault, step_of
from qredit.trl.resume import load_state

if TYPE_CHECKING:
    from qredit.trl.trainer import QreditTrainer

Action = Literal["stop", "roll_back", "paft"]
ACTIONS: tuple[str, ...] = get_args(Action)
SLOWER = 0.5
"""The learning rate after a roll-back, as a share of that before it: the same steps would lead to the same end."""
_CHANCES: Mapping[str, int] = {"roll_back": 3, "paft": 1}
PAFT_COMMITMENT = 0.75
"""q of PAFT where GARL collapses, as the method's authors advise."""


class Guard(TrainerCallback):  # type: ignore[misc]
    """On a collapse (`qredit.guide.collapse`), restores the best checkpoint, if there is one, and then

    - "stop": ends the run;
    - "roll_back": goes on at half the learning rate, three times at most, then ends the run;
    - "paft": goes on with `paft(q=0.75)`; a second collapse ends the run.

    It watches validations where there are any, and always the groups' mean likelihood, or their mean reward where the
    objective reads no likelihood. The best checkpoint is that of the best validation, else the last one saved no later
    than the best steps.

    Args:
        action: what to do.
        validates: whether `check` will be told of validations, which then choose the best checkpoint.
    """

    def __init__(self, action: Action, validates: bool = False) -> None:
        self.action, self.validates = action, validates
        self.trainer: QreditTrainer | None = None
        self.watch, self.instead = Collapse(), False
        self.done: list[dict[str, Any]] = []
        self._validation: Checked | None = None

    def attach(self, trainer: "QreditTrainer") -> None:
        """Serve a trainer.

        Raises:
            QreditError: PAFT is to take over from an objective that reads no likelihood; weights cannot be restored.
        """
        if self.action == "paft" and "answer_logp" not in trainer.objective.needs:
            raise QreditError(
                f"guard=paft needs an objective of the answer's likelihood, such as garl(q=0.75); this is "
                f"{trainer.objective}"
            )
        if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
            raise QreditError("the guard restores whole weights, which DeepSpeed and FSDP cut apart; leave guard out")
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
        elif control.should_save and not self.validates and self._at_best(state.global_step):
            state.best_global_step = state.global_step  # which save_total_limit does not delete

    def _at_best(self, step: int) -> bool:
        return self.watch.best is None or self.watch.best.step == step

    def _act(self, trainer: "QreditTrainer", fallen: Fallen, step: int, control: Any) -> None:
        best = self._checkpoint(trainer, fallen)
        if best is not None:
            _return_to(trainer, best)
        again = best is not None and self.action != "stop" and len(self.done) < _CHANCES[self.action]
        if not again:
            control.should_training_stop = True
        elif self.action == "paft":
            self.instead = True
        else:
            _slow_down(trainer, SLOWER)
        self.watch = self.watch.after()
        self.done.append({"step": step, "change": self._told(best, again), "reason": fallen.reason})

    def _told(self, best: Path | None, again: bool) -> str:
        follows = "stopped"
        if again:
            follows = f"on with {self.objective()}" if self.instead else f"on at {SLOWER:g} of the learning rate"
        return f"{follows}, with the weights of {'now: no checkpoint was good' if best is None else best.name}"

    def _checkpoint(self, trainer: "QreditTrainer", fallen: Fallen) -> Path | None:
        """The newest whole checkpoint up to the best step; of the validation's own step where validations choose."""
        wanted = trainer.state.best_global_step if self.validates else fallen.best
        whole = (path for path in checkpoints(Path(trainer.args.output_dir)) if fault(path) is None)
        return next((path for path in whole if wanted and step_of(path) <= wanted), None)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"watch": self.watch.state(), "instead": self.instead, "done": self.done}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.watch, self.instead = restored(state["watch"]), state["instead"]
        self.done = list(state["done"])


def _return_to(trainer: "QreditTrainer", folder: Path) -> None:
    """Take back the weights and the optimiser's moments of a checkpoint; training goes on from there.

    The data go on where they are, and rollouts of the weights that are given up are dropped.
    """
    trainer._load_from_checkpoint(str(folder), trainer.accelerator.unwrap_model(trainer.model_wrapped))
    moments = torch.load(folder / "optimizer.pt", map_location=trainer.accelerator.device, weights_only=True)
    trainer.optimizer.load_state_dict(moments)
    kept = load_state(folder)
    if kept is not None:
        trainer.objective_state = kept["objective_state"]
    trainer.drop_rollouts()


def _slow_down(trainer: "QreditTrainer", factor: float) -> None:
    """Multiply the learning rate of this and all later steps."""
    scheduler: Any = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)  # accelerate wraps it
    scheduler.base_lrs = [factor * rate for rate in scheduler.base_lrs]
    scheduler._last_lr = [factor * rate for rate in scheduler._last_lr]
    for group, rate in zip(trainer.optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = rate
