"""Objectives side by side: the same model, questions, rollouts and learning rate for each."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from qredit.rewards.reward_spec import parse_rewards
from qredit.runs.curve_plots import smooth
from qredit.runs.experiment import EvalSpec, Variant, read_curves, run_variant
from qredit.runs.fields import check_all_read, check_fields, select_read
from qredit.runs.folder import ensure_writable
from qredit.runs.hinted_prompts import check_hinted_prompts
from qredit.runs.load import (
    check_objective_of_task,
    explain_gold_need,
    find_weights,
    is_single_file,
    load_data,
    load_examples,
)
from qredit.runs.options import TrainOptions
from qredit.runs.parallel import run_parallel
from qredit.runs.quantization import check_four_bit
from qredit.runs.samplers import parse_vllm
from qredit.runs.sft_options import SHOWN
from qredit.runs.warm_start import THEN, split_arm
from qredit.tasks.base import ExamplesWithNotes
from qredit.utils.atomic_files import atomic_write

FINAL_STEPS = 5  # steps that the end of a curve is the mean of
_LONGEST_NAME, _NAME_KEPT = 200, 60  # bytes that a folder's name may have (file systems end at 255); characters kept
CURVE_KEYS = {"success": "curve", "entropy": "entropy", "length": "length"}


@dataclass(frozen=True)
class ComparisonSettings:
    """What all runs of a comparison share.

    Attributes:
        lr: None is 3e-4 for pocket models, and what training takes for others.
        steps: optimiser steps; with several iterations as many fewer generations are sampled.
        iterations: how often each generation is learned from.
        fields: of batch fields and their makers, as the option `field` of training: each run takes those it reads.
        base: all other options of training: model, data, rewards, sizes.
    """

    task: str = "pocket-hotpot"
    style: Literal["cold", "warm"] = "warm"
    steps: int = 60
    lr: float | None = None
    iterations: int = 1
    seeds: tuple[int, ...] = (0, 1, 2)
    questions: int = 128
    fields: tuple[str, ...] = ()
    base: TrainOptions = field(default_factory=TrainOptions)

    def options(self, objective: str, seed: int) -> TrainOptions:
        """One run."""
        again = {"num_iterations": self.iterations} if self.iterations > 1 else {}
        made = replace(
            self.base,
            task=self.task,
            style=self.style,
            objective=objective,
            steps=self.steps,
            lr=3e-4 if self.lr is None and self.base.is_pocket else self.lr,
            seed=seed,
            save_every=0,
            hold_out=self.questions if is_single_file(self.base) else None,
            cpu=self.base.cpu or self.base.is_pocket,
            training={**self.base.training, **again},
        )
        return replace(made, field=select_read(self.fields, made))

    @property
    def held(self) -> EvalSpec:
        """Questions that no run is trained on: the test split, or a held-out part of a single file."""
        return EvalSpec(questions=self.questions, split="validation" if is_single_file(self.base) else "test")


@dataclass(frozen=True)
class ObjectiveResults:
    """One objective's runs, a value or a curve for each seed."""

    objective: str
    values: dict[str, list[float]]
    curves: dict[str, list[list[float]]]

    def cell(self, name: str) -> str:
        """Mean and range over seeds, as a table shows them."""
        scale, digits = {"p@1": (100, 1), "p@16": (100, 1), "entropy": (1, 2), "length": (1, 1), "seconds": (1, 0)}[
            name
        ]
        values = [scale * value for value in self.values[name]]
        mean = f"{statistics.mean(values):.{digits}f}"
        return mean if len(values) == 1 else f"{mean} [{min(values):.{digits}f}, {max(values):.{digits}f}]"

    def summary(self) -> dict[str, Any]:
        """For JSON: mean, smallest and largest of each value."""
        found = {
            name: {"mean": statistics.mean(v), "low": min(v), "high": max(v), "seeds": v}
            for name, v in self.values.items()
        }
        return {"objective": self.objective, **found}


def compare_objectives(
    objectives: Sequence[str],
    settings: ComparisonSettings,
    folder: Path,
    console: Console,
    workers: int = 2,
    kept: Path | None = None,
) -> list[ObjectiveResults]:
    """Every objective with every seed, from its folder where it is kept.

    Args:
        objectives: in their text form; `sft(steps=…) then OBJECTIVE` fine-tunes on the training answers first.
        settings: model, task, seeds and sizes.
        folder: where runs are kept.
        console: where progress is shown.
        workers: processes at once.
        kept: a folder for one small file for each run; see `cached`.

    Raises:
        QreditError: an objective that cannot be read, a folder that cannot be written; before any run.
    """
    parse_vllm(settings.base)
    check_four_bit(settings.base, settings.base.lora)
    arms = [(text, *split_arm(text)) for text in objectives]
    wanted = [
        (text, Variant(settings.options(objective, seed), warm_start=shown))
        for text, shown, objective in arms
        for seed in settings.seeds
    ]
    check_all_read(settings.fields, [arm.options for _, arm in wanted])
    for _, arm in wanted:
        check_objective_of_task(arm.options)
        check_fields(arm.options)
        if arm.warm_start is not None:
            arm.warm_start.make_options(arm.options)  # refused now, and not after other runs
    _check_golds([arm for _, arm in wanted])
    for _, arm in wanted[:: len(settings.seeds)]:
        check_hinted_prompts(arm.options)
    ensure_writable(folder)
    held = settings.held
    jobs = [partial(_run_one, arm, folder / f"{slugify(name)}-{arm.options.seed}", held, kept) for name, arm in wanted]
    threads = 1 if settings.base.is_pocket else max((os.cpu_count() or 1) // workers, 1)
    found = run_parallel("compare", jobs, console, workers, threads)
    rows = []
    for number, objective in enumerate(objectives):
        own = found[number * len(settings.seeds) : (number + 1) * len(settings.seeds)]
        curves = {name: [result[name] for result in own] for name in CURVE_KEYS}
        ends = {
            name: [statistics.mean(curve[-FINAL_STEPS:]) for curve in curves[name]] for name in ("entropy", "length")
        }
        measured = {name: [result[name] for result in own] for name in ("p@1", "p@16", "seconds")}
        values = {**measured, **ends}
        rows.append(ObjectiveResults(objective, values, curves))
    return rows


def load_held_out(settings: ComparisonSettings) -> ExamplesWithNotes:
    """The held-out questions, with what has to be said of the data; rewards, model and training data are looked at too.

    Raises:
        QreditError: one of them cannot be used.
    """
    options = settings.options("grpo", 0)
    rewards = parse_rewards(options.rewards)
    find_weights(options)
    held = settings.held
    needed = explain_gold_need(options)
    trained = load_data(options, "train", options.get_subset_size(), needed)
    asked = load_data(options, held.split, held.questions, needed)
    for reward in rewards:
        reward.check((*trained.examples, *asked.examples))
    return asked


def _check_golds(arms: Sequence[Variant]) -> None:
    """Refuse data without reference answers where an arm reads them."""
    for arm in arms:
        needed = SHOWN if arm.warm_start is not None else explain_gold_need(arm.options)
        if needed is not None:
            load_examples(arm.options, "train", arm.options.get_subset_size(), needed)
            return  # all arms have the same data


def _run_one(arm: Variant, folder: Path, held: EvalSpec, kept: Path | None) -> dict[str, Any]:
    small = None if kept is None else kept / f"{folder.name}.json"
    result = run_variant(arm, folder, held, Console(quiet=True), small)
    metrics = folder / "run" / "metrics.jsonl"
    told = read_curves(metrics) if metrics.is_file() else result  # a result of older versions holds fewer curves
    return {**result, **{name: told[key] for name, key in CURVE_KEYS.items()}}


def steps_to(curve: Sequence[float], share: float, window: int = 5) -> int | None:
    """The first place at which the mean of the last `window` values is at least `share`; None if it never is.

    Args:
        curve: a value for each step.
        share: to be reached.
        window: values of a mean.
    """
    ends = range(window, len(curve) + 1)
    return next((end for end in ends if sum(curve[end - window : end]) / window >= share), None)


def slugify(objective: str) -> str:
    """An objective's text as part of a folder's name; a long one is cut, and told from others by its hash."""
    spaced = objective.replace(THEN, "-then-").replace("=", "").replace(", ", "-").replace(" | ", "+")
    plain = "".join(c for c in spaced if c.isalnum() or c in ".-+_") or "objective"
    if len(plain.encode()) <= _LONGEST_NAME:
        return plain
    return f"{plain[:_NAME_KEPT]}-{sha256(objective.encode()).hexdigest()[:8]}"


def plot_comparison(
    rows: Sequence[ObjectiveResults], path: Path, title: str, reward: str = "successful rollouts (%)"
) -> None:
    """Reward (as `reward` calls it), entropy and length by step, and held-out success with its range over seeds.

    Args:
        rows: results of each objective.
        path: the file.
        title: heading.
        reward: what it is called.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(15, 1.8 + 0.28 * max(len(rows), 9)), dpi=130)
    colours = pyplot.get_cmap("tab20" if len(rows) > 10 else "tab10")
    for number, row in enumerate(rows):
        for panel, name in zip(axes[1:], CURVE_KEYS, strict=True):
            scale = 100 if name == "success" else 1
            middle = [scale * statistics.mean(values) for values in zip(*row.curves[name], strict=False)]
            panel.plot(range(1, len(middle) + 1), smooth(middle), color=colours(number), linewidth=1.6)
        values = [100 * value for value in row.values["p@1"]]
        axes[0].plot([min(values), max(values)], [number, number], color=colours(number), linewidth=2)
        axes[0].plot(statistics.mean(values), number, "o", color=colours(number))
    axes[0].set_yticks(range(len(rows)), [row.objective for row in rows], fontsize=8)
    axes[0].invert_yaxis()
    worst = min(100 * value for row in rows for value in row.values["p@1"])
    axes[0].set(xlabel="held-out p@1 (%)", xlim=(worst - 3 if worst > 50 else -3, 103))
    labels = {reward: "generation", "entropy (nats a token)": "step", "tokens": "generation"}
    for panel, (label, along) in zip(axes[1:], labels.items(), strict=True):
        panel.set(xlabel=along, ylabel=label)
    for panel in axes:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.tight_layout()
    with atomic_write(path) as aside:
        figure.savefig(aside)
    pyplot.close(figure)
