"""The look before the first step: what some prompts show of their likelihood, for the guide to begin from."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from qredit.callbacks.auto_q import AutoQ


class InitialQCallback(TrainerCallback):  # type: ignore[misc]
    """Before the first step of a run that leaves q to its guide, lets it look; a resumed run has looked already.

    Args:
        look: the likelihood facts (`qredit.control.diagnostics`) of some prompts, over all processes.
        m: rollouts per prompt.
        say: shows a line, once for all processes.
    """

    def __init__(
        self, guide: AutoQ, look: Callable[[], Mapping[str, Tensor]], m: int, say: Callable[[str], None]
    ) -> None:
        self.auto_q, self.look, self.m, self.say = guide, look, m, say

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.auto_q.begun:
            return
        decision = self.auto_q.begin(self.look(), self.m)
        self.say(f"{decision.estimator}(q={decision.q:g}): {decision.reason}")
