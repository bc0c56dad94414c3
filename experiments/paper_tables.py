"""The core paper's tables and its Figure 3 in its shape, on the pocket tasks: `make results-paper`.

Cold and warm prompts of pocket-finqa, -hotpot and -musique, where the paper has FinQA, HotPotQA and MuSiQue. Runs lie
in runs/results/paper, their small results in experiments/kept/paper. `--minutes` begins no run after so many, `--write`
writes the tables of what is there. About an hour and a half of one core.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from page import RUNS, gap_cell, insert, kept, machine_line, paired_t, read_small_result
from rich.console import Console
from run_budget import RunBudget, parse_workers

from qredit.cli.demo_command import make_folder_name
from qredit.runs.experiment import EvalSpec, Variant, compute_mean_and_range, run_variant
from qredit.runs.options import TrainOptions
from qredit.runs.parallel import run_parallel

FOLDER, PAGE, PICTURE = RUNS / "paper", Path("docs/results.md"), Path("docs/effective-reward.png")
TEXT = Path(__file__).with_name("paper_tables.md.in")
TASKS = ("pocket-finqa", "pocket-hotpot", "pocket-musique")
COLD = ("grpo()", *(f"garl(q={q})" for q in (0.0, 0.25, 0.5, 0.75, 1.0)), "paft(q=0.75)")
WARM = ("grpo()", *(f"garl(q={q})" for q in (0.0, 0.25, 0.75, 1.0)), "paft(q=0.25)", "paft(q=0.75)")
STYLES = ("cold", "warm")
SEEDS, SWEEP_SEED = (0, 1, 2), 100
STEPS, SWEEP_STEPS = 40, 40
RATES = (3e-4, 1e-3)  # in order of preference among equals
SWEPT = ("grpo()", "garl(q=0.75)", "paft(q=0.75)")  # whose rate is chosen; others take that of their estimator
HELD, CHOOSING = EvalSpec(questions=128), EvalSpec(questions=64, split="validation")
METRICS = ("p@1", "p@16", "m@16")
WIDEST = "centred_weight/max"  # the largest c_m/M^q, which Figure 3 draws

Cell = tuple[str, str, str]
"""Task, style, objective."""
Job = tuple[str, str, str, int, float, int, bool]
"""Task, style, objective, seed, learning rate, steps, trained."""


def list_cells() -> list[Cell]:
    """Cells of both grids, task by task."""
    return [(t, s, o) for t in TASKS for s, objectives in zip(STYLES, (COLD, WARM), strict=True) for o in objectives]


def run_job(job: Job, budget: RunBudget) -> dict[str, Any] | None:
    """One arm, or the base model, with the curve of Figure 3; None where it is not there and none is to be begun.

    Args:
        job: which.
        budget: whether a missing one is run.
    """
    task, style, objective, seed, rate, steps, trained = job
    name = make_folder_name(objective, f"{rate:g}", seed) if trained else "base"
    folder, held = FOLDER / f"{task}-{style}-{name}", CHOOSING if seed == SWEEP_SEED else HELD
    small = kept(folder).with_name(f"{folder.name}-weights.json")
    if budget.is_spent:
        result = read_small_result(kept(folder))
        if result is None:
            return None
    else:
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
        result = run_variant(Variant(options, trained), folder, held, Console(quiet=True), kept(folder))
        metrics = folder / "run" / "metrics.jsonl"
        if trained and metrics.is_file() and not small.is_file():
            entries = (json.loads(line) for line in metrics.read_text().splitlines())
            small.write_text(json.dumps([entry[WIDEST] for entry in entries if WIDEST in entry]) + "\n")
    return result | {"widest": json.loads(small.read_text()) if small.is_file() else []}


def run_all(
    what: str, jobs: Sequence[Job], budget: RunBudget, workers: int, console: Console
) -> dict[Job, dict[str, Any]]:
    """The results of those jobs that are there or were run.

    Args:
        what: heading.
        jobs: in the order in which they are run.
        budget: whether a missing one is begun.
        workers: runs at once.
        console: where progress is shown.
    """
    run = partial(run_job, budget=budget)
    if budget.write:
        found = [run(job) for job in jobs]
    else:
        found = run_parallel(what, [partial(run, job) for job in jobs], console, workers)
    return {job: result for job, result in zip(jobs, found, strict=True) if result is not None}


def choose_rates(budget: RunBudget, workers: int, console: Console) -> dict[Cell, float]:
    """The learning rate of each cell: of what is swept there, the better one; of the rest, that of its estimator."""
    swept = [(t, s, o, SWEEP_SEED, rate, SWEEP_STEPS, True) for t, s, o in list_cells() if o in SWEPT for rate in RATES]
    found = run_all("rates", swept, budget, workers, console)

    def height(cell: Cell, rate: float) -> float:
        result = found.get((*cell, SWEEP_SEED, rate, SWEEP_STEPS, True))
        return -1.0 if result is None else result["p@1"]

    chosen = {}
    for task, style, objective in list_cells():
        leader = (task, style, next(one for one in SWEPT if one.split("(")[0] == objective.split("(")[0]))
        chosen[task, style, objective] = max(RATES, key=lambda rate: height(leader, rate))
    return chosen


def main() -> None:
    """Choose rates, run what is missing, draw the figure and write the section."""
    workers, budget = parse_workers(__doc__)
    console = Console(highlight=False)
    bases = run_all(
        "bases", [(t, s, "grpo()", 0, RATES[0], 1, False) for t in TASKS for s in STYLES], budget, workers, console
    )
    rates = choose_rates(budget, workers, console)
    jobs = [(*cell, seed, rates[cell], STEPS, True) for seed in SEEDS for cell in list_cells()]
    arms = run_all("arms", jobs, budget, workers, console)
    by_cell = {cell: [arms[job] for job in jobs if job[:3] == cell and job in arms] for cell in list_cells()}
    by_base = {job[:2]: [result] for job, result in bases.items()}
    drawn = {o: by_cell["pocket-finqa", "cold", o] for o in COLD if o.startswith("garl")}
    plot_widest({o: results for o, results in drawn.items() if results}, PICTURE)
    text = Template(TEXT.read_text()).substitute(
        cold=write_table("cold", COLD, by_cell, by_base, METRICS),
        warm=write_table("warm", WARM, by_cell, by_base, METRICS),
        against="\n".join(compare_with_warm_grpo(task, by_cell) for task in TASKS),
        machine=machine_line(),
        steps=STEPS,
        swept=SWEEP_STEPS,
        questions=HELD.questions,
        rates=tell_rates(rates),
        ahead=gap_cell(paired_t(*(by_cell["pocket-musique", "cold", one] for one in ("paft(q=0.75)", "garl(q=0.75)")))),
    )
    insert(PAGE, "paper tables", text)


def tell_rates(rates: Mapping[Cell, float]) -> str:
    """Where the sweep chose another learning rate than the preferred one."""
    told = [
        f"{rate:g} for `{objective}` on {style} {task}"
        for (task, style, objective), rate in rates.items()
        if objective in SWEPT and rate != RATES[0]
    ]
    return f"{RATES[0]:g}, but {', '.join(told)}" if told else f"{RATES[0]:g} everywhere"


Cells = Mapping[Cell, Sequence[Mapping[str, Any]]]


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
    if not results:
        return ""
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
