"""Callbacks of a run: samples on disk, validation; and the bars that runs and experiments show."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from qredit.evaluation.metrics import Answered, summary
from qredit.samplers.answers import answer_all
from qredit.utils.plain import json_line
from qredit.rewards.given import Reward
from qredit.tasks import Example
from qredit.trl import QreditTrainer
from qredit.trl.metrics_file import AppendLines
from qredit.utils.whole import append

_PERIOD = 3600.0  # seconds that an estimate looks back on: steps and jobs may take minutes each


def progress(console: Console) -> Progress:
    """Bars with counts, elapsed time and an estimate of what is left; nothing is shown on a quiet console.

    Where the console is narrow the bar gives way, not the numbers.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("eta"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=console, speed_estimate_period=_PERIOD, disable=console.quiet)


class KeepSamples(AppendLines):
    """Appends, at each logged step, the first group of the rollouts in use to samples.jsonl."""

    def __init__(self, path: Path, every: int) -> None:
        super().__init__(path)
        self.every = every
        self.trainer: QreditTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer is None or not state.is_world_process_zero or state.global_step % self.every:
            return
        logs, m = self.trainer._logs, self.trainer.num_generations
        if not logs["prompt"]:  # resumed inside a generation: it was sampled, and kept, before
            return
        record = {
            "step": state.global_step,
            "prompt": next(iter(logs["prompt"])),
            "completions": list(logs["completion"])[:m],
            "rewards": {name: list(values)[:m] for name, values in logs["rewards"].items()},
        }
        append(self.path, json_line(record))


class Validate(AppendLines):
    """Samples answers to held-out questions every few steps; each process takes its share."""

    def __init__(
        self, path: Path, examples: Sequence[Example], rewards: Sequence[Reward], k: int, every: int, seed: int
    ) -> None:
        super().__init__(path)
        self.examples, self.rewards = examples, rewards
        self.k, self.every, self.seed = k, every, seed
        self.trainer: QreditTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer is not None and state.global_step % self.every == 0:
            self._validate(self.trainer, state.global_step)
            control.should_save = True

    def _validate(self, trainer: QreditTrainer, step: int) -> None:
        rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
        mine = list(
            answer_all(
                trainer.accelerator.unwrap_model(trainer.model),
                trainer.format,
                self.examples[rank::world],
                self.rewards,
                trainer.args.budget,
                self.k,
                seed=self.seed + rank,
                stop_tokens=trainer.eos_token_ids,
                pad=trainer._tokenizer.pad_token_id,
                template=trainer.chat_template_kwargs,
                rows_per_batch=trainer.args.generation_batch_size // world,
                half=bool(trainer.args.bf16),
            )
        )
        every: list[Answered] = gather_object(mine)
        estimates = summary(every, self.rewards[0].name, self.k)
        found = {name: estimate.value for name, estimate in estimates.items()}
        self._keep_best(trainer, step, found[f"m@{self.k}"])
        if trainer.guard is not None:
            success = estimates["p@1"]
            trainer.guard.check(step, success.value, success.low, success.high)
        if trainer.is_world_process_zero():
            append(self.path, json.dumps({"step": step, "questions": len(every), **found}) + "\n")
            for name, value in found.items():
                trainer._metrics["train"][f"validation/{name}"].append(value)

    def _keep_best(self, trainer: QreditTrainer, step: int, value: float) -> None:
        """Tell the trainer which checkpoint save_total_limit must not delete; see `best_step`."""
        state = trainer.state
        if state.best_metric is None or value > state.best_metric:
            state.best_metric, state.best_global_step = value, step


class KeepDecisions(AppendLines):
    """Appends what guide and guard decided, with the reason, to decisions.jsonl; `step` is the last one before it.

    Attributes:
        tell: also told the newest decision, in a line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.tell: Callable[[str], None] = lambda text: None
        self.trainer: QreditTrainer | None = None
        self._kept = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self._kept = len(self.path.read_text(encoding="utf-8").splitlines()) if self.path.exists() else 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(state)

    def _keep(self, state: Any) -> None:
        fresh = self._decided()[self._kept :]
        self._kept += len(fresh)
        if state.is_world_process_zero and fresh:
            append(self.path, "".join(map(json_line, fresh)))
            self.tell("after step {step}: {change}; {reason}".format_map(fresh[-1]))

    def _decided(self) -> list[dict[str, Any]]:
        """Every decision so far, in order."""
        if self.trainer is None:
            return []
        guide, guard = self.trainer.guide, self.trainer.guard
        chosen = [] if guide is None else [one.told() for one in guide.decisions]
        return sorted(chosen + ([] if guard is None else guard.done), key=lambda one: int(one["step"]))


def best_step(path: Path, metric: str) -> int | None:
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
