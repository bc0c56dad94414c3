"""The core paper's tables and its Figure 3 in its shape, on the pocket tasks: `make results-paper`.

Runs lie in runs/results/paper, their small results in experiments/kept/paper. About an hour and a quarter on two cores.
Cold and warm prompts of pocket-finqa, -hotpot and -musique, where the paper has FinQA, HotPotQA and MuSiQue.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import torch
from page import RUNS, insert, kept, machine_line
from rich.console import Console

from qredit.cli.demo_command import make_folder_name
from qredit.runs.experiment import EvalSpec, Variant, compute_mean_and_range, run_variant
from qredit.runs.library_logging import silence_libraries
from qredit.runs.options import TrainOptions
from qredit.runs.parallel import run_parallel

FOLDER, PAGE, PICTURE = RUNS / "paper", Path("docs/results.md"), Path("docs/effective-reward.png")
TEXT = Path(__file__).with_name("paper_tables.md.in")
TASKS = ("pocket-finqa", "pocket-hotpot", "pocket-musique")
COLD = ("grpo()", *(f"garl(q={q})" for q in (0.0, 0.25, 0.5, 0.75, 1.0)), "paft(q=0.75)")
WARM = ("grpo()", *(f"garl(q={q})" for q in (0.0, 0.25, 0.75, 1.0)), "paft(q=0.25)", "paft(q=0.75)")
SEEDS, SWEEP_SEED = (0, 1, 2), 100
STEPS, SWEEP_STEPS = 80, 40
RATES = (3e-4, 1e-3)  # in order of preference among equals
HELD, CHOOSING = EvalSpec(questions=128), EvalSpec(questions=64, split="validation")
METRICS = ("p@1", "p@16", "m@16")
WIDEST = "centred_weight/max"  # the largest c_m/M^q, which Figure 3 draws

Job = tuple[str, str, str, int, float, int, bool]
"""Task, style, objective, seed, learning rate, steps, trained."""


def run_job(task: str, style: str, objective: str, seed: int, rate: float, steps: int, trained: bool) -> dict[str, Any]:
    """One arm, or the base model, with the curve of Figure 3."""
    torch.set_num_threads(1)
    options = TrainOptions(
        task=task,
        style=style,  # type: ignore[arg-type]
        objective=objective,
        seed=seed,
        lr=rate,
        steps=steps,
        save_every=0,
        cpu=True,
    )
    name = make_folder_name(objective, f"{rate:g}", seed) if trained else "base"
    folder, held = FOLDER / f"{task}-{style}-{name}", CHOOSING if seed == SWEEP_SEED else HELD
    result = run_variant(Variant(options, trained), folder, held, Console(quiet=True), kept(folder))
    metrics, small = folder / "run" / "metrics.jsonl", kept(folder).with_name(f"{folder.name}-weights.json")
    if metrics.is_file() and not small.is_file() and trained:
        entries = (json.loads(line) for line in metrics.read_text().splitlines())
        small.write_text(json.dumps([entry[WIDEST] for entry in entries if WIDEST in entry]) + "\n")
    return result | {"widest": json.loads(small.read_text()) if small.is_file() else []}


def run_all(jobs: Sequence[Job], console: Console, what: str) -> dict[Job, dict[str, Any]]:
    """The results of these jobs, two at a time."""
    return dict(zip(jobs, run_parallel(what, [partial(run_job, *job) for job in jobs], console), strict=True))


def main() -> None:
    """Choose rates, run what is missing, draw the figure and write the section."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    console = Console(highlight=False)
    cells = [(t, s, o) for t in TASKS for s, objectives in (("cold", COLD), ("warm", WARM)) for o in objectives]
    swept = run_all([(*c, SWEEP_SEED, rate, SWEEP_STEPS, True) for c in cells for rate in RATES], console, "rates")
    best = {c: max(RATES, key=lambda r: swept[(*c, SWEEP_SEED, r, SWEEP_STEPS, True)]["p@1"]) for c in cells}
    arms = run_all([(*c, seed, best[c], STEPS, True) for c in cells for seed in SEEDS], console, "arms")
    bases = run_all(
        [(t, s, "grpo()", 0, RATES[0], 1, False) for t in TASKS for s in ("cold", "warm")], console, "bases"
    )
    by_cell = {c: [arms[(*c, seed, best[c], STEPS, True)] for seed in SEEDS] for c in cells}
    by_base = {(job[0], job[1]): [result] for job, result in bases.items()}
    plot_widest({o: by_cell["pocket-finqa", "cold", o] for o in COLD if o.startswith("garl")}, PICTURE)
    text = Template(TEXT.read_text()).substitute(
        cold=write_table("cold", COLD, by_cell, by_base, METRICS),
        warm=write_table("warm", WARM, by_cell, by_base, METRICS),
        against="\n".join(compare_with_warm_grpo(task, by_cell) for task in TASKS),
        machine=machine_line(),
    )
    insert(PAGE, "paper tables", text)


Cells = Mapping[tuple[str, str, str], Sequence[Mapping[str, Any]]]


def write_table(
    style: str,
    objectives: Sequence[str],
    cells: Cells,
    bases: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    metrics: Sequence[str],
) -> str:
    """One line for each objective, for each task the metrics side by side, as the paper prints them."""
    lines = [f"| base model | {' | '.join(cell(bases[task, style], metrics) for task in TASKS)} |"]
    for objective in objectives:
        lines.append(
            f"| `{objective}` | {' | '.join(cell(cells[task, style, objective], metrics) for task in TASKS)} |"
        )
    return "\n".join(lines)


def compare_with_warm_grpo(task: str, cells: Cells) -> str:
    """Table 2: GARL from cold prompts beside GRPO, which was given the instruction."""
    arms = (cells[task, "warm", "grpo()"], cells[task, "cold", "garl(q=0.75)"], cells[task, "cold", "garl(q=1.0)"])
    return f"| {task} | {' | '.join(cell(arm, METRICS) for arm in arms)} |"


def cell(results: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """Means over seeds in percent, and of the first metric the smallest and the largest seed."""
    means = " / ".join(f"{100 * compute_mean_and_range(results, metric)[0]:.1f}" for metric in metrics)
    _, low, high = compute_mean_and_range(results, metrics[0])
    return means if len(results) == 1 else f"{means} [{100 * low:.1f}, {100 * high:.1f}]"


def plot_widest(arms: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Figure 3: the largest c_m/M^q of a step against the step, mean over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=130)
    for number, (objective, results) in enumerate(arms.items()):
        steps = zip(*(result["widest"] for result in results), strict=False)
        axes.plot([sum(values) / len(values) for values in steps], label=objective, color=f"C{number}")
    axes.set(xlabel="step", ylabel="largest c_m / M^q of the step", title="pocket-finqa, cold prompts, three seeds")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
