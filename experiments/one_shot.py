"""One question, long after it is solved: what happens to others? Part of `make results-data`.

The plan, written before the first of these runs. `recipes/one-shot.yaml` as it stands (arXiv 2504.20571 saw success on
other questions grow for long after that on the trained one was whole), and the same run by `grpo()`, which learns
nothing once all rollouts are right. Three seeds, all of one and the same question. A run is solved from the first of
`WINDOW` steps in a row on that had at least `WHOLE` of their rollouts right. Told is the success on 64 questions that
were never trained on: before the run, at its first validation, at its height and at the end.

Runs are kept in runs/results/one-shot, their small results in experiments/kept/one-shot. `--minutes` begins no run
after so many, `--write` writes the table of what is there and trains nothing.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
from page import RUNS, insert, kept, machine_line, percent_cell, read_small_result
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit.cli.parser import build_options, read_yaml
from qredit.cli.train_command import list_training_fields
from qredit.runs.experiment import EvalSpec, evaluate_model, hash_initial_weights, load_or_compute, read_curves
from qredit.runs.options import TrainOptions
from qredit.runs.train import train

FOLDER, PAGE, PICTURE = RUNS / "one-shot", Path("docs/results.md"), Path("docs/one-shot.png")
TEXT = Path(__file__).with_name("one_shot.md.in")
RECIPE = "recipes/one-shot.yaml"
SEEDS, WINDOW, WHOLE = (0, 1, 2), 5, 0.99
GRPO = "grpo()"
OBJECTIVES = ("one_shot_entropy()", GRPO)  # the recipe's, and what it is an extension of

Job = tuple[str, int]
"""Objective, seed."""


def make_options(objective: str, seed: int) -> TrainOptions:
    """The recipe's run."""
    recipe = build_options(TrainOptions, [(RECIPE, read_yaml(RECIPE))], list_training_fields)
    return replace(recipe, objective=objective, seed=seed, save_every=0, cpu=True)


def run_job(job: Job, budget: RunBudget) -> dict[str, Any] | None:
    """What a run's rollouts and its validations came to; None where it is not there and none is to be begun.

    Args:
        job: which.
        budget: whether a missing run is made.
    """
    objective, seed = job
    folder = FOLDER / f"{plain(objective)}-{seed}"
    if budget.is_spent:
        return read_small_result(kept(folder))
    options = make_options(objective, seed)

    def make() -> dict[str, Any]:
        train(options, folder / "run", Console(quiet=True))
        lines = (folder / "run" / "validation.jsonl").read_text().splitlines()
        return {
            "curve": read_curves(folder / "run" / "metrics.jsonl")["curve"],
            "validation": [[found["step"], found["p@1"]] for found in map(json.loads, lines)],
        }

    facts = {"train": options.changed(), "weights": hash_initial_weights(options)}
    return load_or_compute(folder, facts, make, kept(folder))


def find_saturation(curve: list[float]) -> int | None:
    """The first step of the first `WINDOW` whose rollouts are right, counted from 1; None where there is none."""
    right = [value >= WHOLE for value in curve]
    return next((at + 1 for at in range(len(right) - WINDOW + 1) if all(right[at : at + WINDOW])), None)


def ask_untrained(budget: RunBudget) -> float | None:
    """Success of the model before a run, on as many questions; None where it was not asked and is not to be."""
    folder = FOLDER / "untrained"
    if budget.is_spent:
        known = read_small_result(kept(folder))
    else:
        options = make_options(GRPO, 0)
        held = EvalSpec(options.eval_questions, options.eval_k, split="validation")
        facts = {"train": options.changed(), "weights": hash_initial_weights(options), "held": asdict(held)}
        known = load_or_compute(folder, facts, lambda: {**evaluate_model(options, None, held)["p@1"]}, kept(folder))
    return None if known is None else float(known["value"])


def write_rows(found: Mapping[Job, Mapping[str, Any]]) -> Iterator[str]:
    """One line for each objective that was run."""
    for objective in OBJECTIVES:
        own = [result for job, result in found.items() if job[0] == objective]
        if not own:
            continue
        whole = [find_saturation(one["curve"]) for one in own]
        cells = [
            ", ".join("never" if step is None else str(step) for step in whole),
            percent_cell([one["validation"][0][1] for one in own]),
            percent_cell([max(value for _, value in one["validation"]) for one in own]),
            percent_cell([one["validation"][-1][1] for one in own]),
        ]
        yield f"| `{objective}` | {len(own)} | {' | '.join(cells)} |"


def plot(found: Mapping[Job, Mapping[str, Any]], path: Path) -> None:
    """Success on the trained question and on others against the step, seed by seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(OBJECTIVES), figsize=(9, 3.6), dpi=130, sharey=True)
    for axes, objective in zip(panels, OBJECTIVES, strict=True):
        for (name, seed), one in found.items():
            if name == objective:
                steps, values = zip(*one["validation"], strict=True)
                axes.plot(range(1, len(one["curve"]) + 1), one["curve"], color=f"C{seed}", alpha=0.35)
                axes.plot(steps, values, color=f"C{seed}", marker="o", markersize=3, label=f"seed {seed}")
        axes.set(xlabel="step", title=objective, ylim=(-0.02, 1.02))
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("success: pale the trained question,\ndark the others", fontsize=9)
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run what is missing, draw the curves and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_jobs(
        [(objective, seed) for seed in SEEDS for objective in OBJECTIVES],
        lambda job: run_job(job, budget),
        lambda job, told: f"{job[0]} seed {job[1]}: {100 * told['validation'][-1][1]:.1f} % of others",
        Console(highlight=False),
    )
    untrained = ask_untrained(budget)
    if found and untrained is not None:
        plot(found, PICTURE)
        said = {"rows": "\n".join(write_rows(found)), "machine": machine_line(), "window": WINDOW}
        shares = {"whole": f"{100 * WHOLE:.0f}", "untrained": f"{100 * untrained:.1f}"}
        text = Template(TEXT.read_text()).substitute(said, **shares)
        insert(PAGE, "one question", text)


if __name__ == "__main__":
    main()
