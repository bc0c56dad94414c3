"""Validation while a run goes on, in validation.jsonl; the best step of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qredit.callbacks.collapse_guard import CollapseGuard
from qredit.callbacks.metrics_file import JsonLinesCallback
from qredit.engine.protocols import AnsweringRun
from qredit.evaluation.metrics import summarize
from qredit.rewards.reward_spec import Reward
from qredit.tasks.base import Example
from qredit.utils.atomic_files import append_text
from qredit.utils.former_names import former_names

__all__ = ["ValidationCallback"]


class ValidationCallback(JsonLinesCallback):
    """Samples answers to held-out questions every few steps; each process takes its share.

    Give it to the trainer before the guard among its `callbacks`. Each validation saves a checkpoint.

    Args:
        path: of validation.jsonl.
        examples: held-out questions with their reference answers.
        rewards: what scores an answer; the first one decides what is right.
        k: samples of each question, and the k of m@k.
        every: steps between validations.
        seed: of the samples.
        guard: is told of each validation.

    Attributes:
        run: the trainer, to be set once there is one; nothing is validated before.
    """

    def __init__(
        self,
        path: Path,
        examples: Sequence[Example],
        rewards: Sequence[Reward],
        k: int,
        every: int,
        seed: int,
        guard: CollapseGuard | None = None,
    ) -> None:
        super().__init__(path)
        self.examples, self.rewards = examples, rewards
        self.k, self.every, self.seed = k, every, seed
        self.guard = guard
        self.run: AnsweringRun | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run is not None and state.global_step % self.every == 0:
            self._validate(self.run, state)
            control.should_save = True

    def _validate(self, run: AnsweringRun, state: Any) -> None:
        answered = run.answers(self.examples, self.rewards, self.k, self.seed)
        estimates = summarize(answered, self.rewards[0].name, self.k)
        found = {name: estimate.value for name, estimate in estimates.items()}
        _keep_best(state, found[f"m@{self.k}"])
        if self.guard is not None:
            success = estimates["p@1"]
            self.guard.check(state.global_step, success.value, success.low, success.high)
        if state.is_world_process_zero:
            append_text(self.path, json.dumps({"step": state.global_step, "questions": len(answered), **found}) + "\n")
            run.log_with_step({f"validation/{name}": value for name, value in found.items()})


def _keep_best(state: Any, value: float) -> None:
    """Tell the trainer which checkpoint save_total_limit must not delete; see `find_best_step`."""
    if state.best_metric is None or value > state.best_metric:
        state.best_metric, state.best_global_step = value, state.global_step


def find_best_step(path: Path, metric: str) -> int | None:
    """The step with the highest value of a metric in validation.jsonl, the earliest of equals.

    None without any, and where all values are equal: then no checkpoint is better than another, and the last weights
    are the model.
    """
    if not path.exists():
        return None
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    if len({entry[metric] for entry in entries}) < 2:
        return None
    return int(max(entries, key=lambda entry: (entry[metric], -entry["step"]))["step"])


__getattr__ = former_names(__name__, {"Validate": "ValidationCallback", "best_step": "find_best_step"})
