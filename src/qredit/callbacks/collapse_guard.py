"""The collapse guard: a callback that watches success and validations, and does what it was asked to when they fall."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from qredit.callbacks.collapse_response import LEARNING_RATE_FACTOR, PAFT_Q, CollapseResponse
from qredit.engine.run_state import GUARD, load_state
from qredit.utils.former_names import former_names

__all__ = ["LEARNING_RATE_FACTOR", "PAFT_Q", "CollapseGuard"]


class CollapseGuard(CollapseResponse, TrainerCallback):  # type: ignore[misc]
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

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run is None or self.run.step_success is None:
            return
        # of the step that is the best of the validations rotation keeps the checkpoint
        self.end_step(state.global_step, control.should_save, state.best_global_step)
        control.should_training_stop = control.should_training_stop or self.ended
        self._keep(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.remember(state.global_step, control.should_save)
        self._keep(state)

    def _keep(self, state: Any) -> None:
        """Have rotation leave the good checkpoint alone."""
        if self.good is not None and state.best_metric is None:  # no validation has chosen one
            state.best_global_step = self.good


def has_guard_ended_run(checkpoint: Path) -> bool:
    """Whether the guard had ended the run when this checkpoint was written: there is nothing to go on with."""
    guard = (load_state(checkpoint) or {}).get(GUARD)
    return guard is not None and bool(guard["ended"])


__getattr__ = former_names(__name__, {"Guard": "CollapseGuard"})
