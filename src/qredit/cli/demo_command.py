"""See GRPO stall and GARL escape: the same cold task, rollouts, steps and learning rate for every objective.

Trains the pocket model on pocket-hotpot: GRPO, GARL q = 0 and 0.75 and PAFT q = 0.75; --full adds the rest of the q
dial. --real trains SmolLM2-135M-Instruct on the same questions instead: GRPO, the log-prob reward and GARL q = 0.75.
Every run starts from the same base model, which never answers as asked. Runs that are done are taken from --output;
delete the folder to make them anew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qredit.cli.parser import Parser, add_options, build_options
from qredit.runs.curve_plots import plot_curves
from qredit.runs.options import POCKET, TrainOptions, check_minimums, option
from qredit.runs.smollm2 import SMOLLM2
from qredit.runs.sparkline import averaged, draw_sparkline
from qredit.utils.atomic_files import write_text_atomic
from qredit.utils.errors import QreditError

DEFAULT_OBJECTIVES = ("grpo()", "garl(q=0.0)", "garl(q=0.75)", "paft(q=0.75)")
FULL_OBJECTIVES = (
    "grpo()",
    *(f"garl(q={q})" for q in (0.0, 0.25, 0.5, 0.75, 1.0)),
    *(f"paft(q={q})" for q in (0.75, 1.0)),
)
ESCAPED = 0.05  # held-out p@1 of a model that has left a start without any success
REAL_OBJECTIVES = ("grpo()", "logprob()", "garl(q=0.75)")
REAL: Mapping[str, Any] = {"model": SMOLLM2, "steps": 14, "lr": 3e-5, "questions": 32, "output": "runs/demo-real"}
"""What --real sets; options on the command line hold over it."""
SIZES: Mapping[str, Mapping[str, Any]] = {
    POCKET: {},
    SMOLLM2: {"m": 8, "prompts_per_step": 4, "max_completion_length": 40, "answer_budget": 8},
}
"""Sizes of a step, by model: what takes SmolLM2 some 20 seconds on two cores."""


@dataclass(frozen=True)
class DemoOptions:
    """What the demo runs."""

    task: str = option("pocket-hotpot", "pocket task")
    style: str = option("cold", "prompt style", "cold", "warm")
    model: str = option(POCKET, "'pocket' is the task's own small model", POCKET, SMOLLM2)
    steps: int = option(80, "optimiser steps of every run")
    lr: float = option(3e-4, "learning rate of every run")
    seed: int = option(0, "first seed")
    seeds: int = option(1, "number of seeds")
    questions: int = option(256, "held-out questions, 16 samples each")
    output: str = option("runs/demo", "folder for the runs, the table and the plot")

    def __post_init__(self) -> None:
        check_minimums(self, {"steps": 1, "seeds": 1, "seed": 0, "questions": 1})
        if not self.task.startswith("pocket-"):
            raise QreditError(f"the demo runs on pocket tasks, got {self.task}; use `qredit train` for the others")


def add_arguments(parser: Parser) -> None:
    """The options of the demo."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--full", action="store_true", help="every q, and PAFT at 0.75 and 1")
    which.add_argument(
        "--real", action="store_true", help="SmolLM2-135M-Instruct, fetched on first use (98 MB); 25 minutes on 2 cores"
    )
    add_options(parser, DemoOptions, "options")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Run the arms, then show table, curves and a paragraph.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    full, real = given.pop("full"), given.pop("real")
    objectives = FULL_OBJECTIVES if full else REAL_OBJECTIVES if real else DEFAULT_OBJECTIVES
    demo = build_options(DemoOptions, [("--real", REAL if real else {}), ("the command line", given)])
    from qredit.report.write import write_report
    from qredit.runs.experiment import EvalSpec, Variant, run_variant

    folder, held = Path(demo.output), EvalSpec(questions=demo.questions)
    base = run_variant(Variant(_options(demo, "grpo()", 0), trained=False), folder / "base", held, progress)
    seeds = range(demo.seed, demo.seed + demo.seeds)
    arms = [
        run_variant(
            Variant(_options(demo, objective, seed)),
            folder / make_folder_name(objective, f"seed{seed}"),
            held,
            progress,
        )
        for objective in objectives
        for seed in seeds
    ]
    picture = folder / "curves.png"
    by_label = {objective: [arm for arm in arms if arm["label"] == objective] for objective in objectives}
    title = f"{demo.task}, {demo.style} prompts"
    plot_curves(by_label, picture, title)
    _show(base, by_label, demo, out)
    report = write_report(
        [folder / make_folder_name(o, f"seed{seed}") for o in objectives for seed in seeds], folder / "report.html"
    )
    out.print(f"\ncurves: {picture}", soft_wrap=True)
    out.print(f"report: {report}", soft_wrap=True)
    shown = ("objective", "q", "seed", "p@1", "p@16", "m@16", "steps", "seconds")
    result = {
        "arms": [{name: arm[name] for name in shown} for arm in arms],
        "base": {name: base[name] for name in ("p@1", "p@16", "m@16")},
        "run": str(folder),
        "report": str(report),
    }
    write_text_atomic(folder / "demo.json", json.dumps(result, indent=1) + "\n")
    return result


def _options(demo: DemoOptions, objective: str, seed: int) -> TrainOptions:
    return TrainOptions(
        task=demo.task,
        style=demo.style,  # type: ignore[arg-type]
        model=demo.model,
        objective=objective,
        steps=demo.steps,
        lr=demo.lr,
        seed=seed,
        cpu=True,
        **SIZES[demo.model],
    )


def make_folder_name(objective: str, *more: object) -> str:
    """A folder name for an arm: garlq0.75-0."""
    plain = "".join(c for c in objective.replace("=", "") if c.isalnum() or c == ".")
    return "-".join([plain, *map(str, more)])


def _show(
    base: Mapping[str, Any], arms: Mapping[str, Sequence[Mapping[str, Any]]], demo: DemoOptions, out: Console
) -> None:
    table = Table(title=f"{demo.task}, {demo.style} prompts: held-out success in %", title_justify="left")
    for name in ("", "p@1", "p@16", "m@16", "steps", "seconds"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_column(f"success, step 1 → {demo.steps}", no_wrap=True)
    table.add_row("base model", *(f"{100 * base[name]:.1f}" for name in ("p@1", "p@16", "m@16")), "0", "", "")
    for label, found in arms.items():
        seconds = sum(arm["seconds"] for arm in found) / len(found)
        curve = [sum(values) / len(values) for values in zip(*(arm["curve"] for arm in found), strict=True)]
        table.add_row(
            label,
            *(_cell(found, name) for name in ("p@1", "p@16", "m@16")),
            str(demo.steps),
            f"{seconds:.0f}",
            draw_sparkline(averaged(curve, width=20), 0.0, 1.0),
        )
    out.print(table)
    if demo.seeds > 1:
        out.print(f"mean over {demo.seeds} seeds, smallest and largest in brackets")
    out.print(_paragraph(base, arms, demo), highlight=False)


def _cell(found: Sequence[Mapping[str, Any]], metric: str) -> str:
    from qredit.runs.experiment import compute_mean_and_range

    mean, low, high = (100 * value for value in compute_mean_and_range(found, metric))
    return f"{mean:.1f}" if len(found) == 1 else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _paragraph(base: Mapping[str, Any], arms: Mapping[str, Sequence[Mapping[str, Any]]], demo: DemoOptions) -> str:
    """What happened, in plain words, from the numbers of this very run."""
    from qredit.runs.experiment import compute_mean_and_range

    sizes = _options(demo, "grpo()", 0)
    rollouts = sizes.m * sizes.prompts_per_step * demo.steps * demo.seeds
    stalled = [label for label, found in arms.items() if compute_mean_and_range(found, "p@1")[2] < 0.01]
    escaped = {
        label: compute_mean_and_range(found, "p@1")[0]
        for label, found in arms.items()
        if compute_mean_and_range(found, "p@1")[0] > ESCAPED
    }
    likelihood = next((f["p_hat"][0] for found in arms.values() for f in found if f["p_hat"][0] is not None), None)
    measured = "" if likelihood is None else f", and gives the gold answer a median probability of 1e{likelihood:.0f}"
    told = [f"The base model answers {100 * base['p@1']:.1f} % of the questions as asked{measured}."]
    if "grpo()" in stalled:
        told.append(
            f"GRPO drew {rollouts:,} rollouts; all of them were wrong, so every advantage was zero and nothing moved."
            if not any(value for arm in arms["grpo()"] for value in arm["curve"])
            else f"GRPO stayed below 1 % over {rollouts:,} rollouts."
        )
    if "garl(q=0.0)" in stalled:
        told.append(
            "GARL at q = 0 takes the likelihood as its reward and stalls too: a likelihood near zero is a gradient "
            "near zero."
        )
    for label, value in escaped.items():
        told.append(f"{label} reached {100 * value:.0f} %.")
    if escaped and stalled:
        told.append(
            "They saw the same prompts and the same number of rollouts. They learn from the likelihood of the gold "
            "answer, however small it is:"
        )
        how = {"garl": "GARL amplifies it by q", "paft": "PAFT draws by it", "logprob": "log-prob takes its logarithm"}
        told.append(" and ".join(text for name, text in how.items() if any(name in label for label in escaped)) + ".")
    return " ".join(told)
