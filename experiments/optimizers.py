"""Optimisers and schedules on a real pretrained model: `make results-optimizers`, which goes on where it was stopped.

The plan, written before the first run. SmolLM2-135M-Instruct, the one-hop questions of `real_model.py`, GARL at q =
0.75, `STEPS` steps of 4 questions × 8 rollouts. Each of the optimisers at each of the rates, then each schedule with
AdamW at the rate at which AdamW's last three steps had the likeliest gold answers. One seed: no arm is called better
than another. Runs of GaLore that are missing are left out where galore-torch is not installed.

Muon was in the plan. PyTorch's takes Newton-Schulz steps in bfloat16, which this CPU multiplies slowly: its first two
steps took some twenty minutes, and it was left out.

`--minutes` begins no run after so many, `--write` writes what is there and trains nothing. `--pocket` tries the code in
two steps of a pocket model, in a folder of its own, keeps nothing and writes no page.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from page import KEPT, RUNS, insert, machine_line, read_small_result
from real_model import make_options, remove_weights
from real_plan import Arm
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit.runs.experiment import hash_initial_weights, load_or_compute, read_curves
from qredit.runs.options import TrainOptions
from qredit.runs.train import train

PAGE, TEXT = Path("docs/results.md"), Path(__file__).with_name("optimizers.md.in")
STEPS, RATES, SEED, LAST = 12, (3e-5, 1e-4, 3e-4), 0, 3
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "AdamW": {},
    "GaLore": {
        "training": {"optim": "galore_adamw", "optim_target_modules": "all-linear", "optim_args": "rank=64, scale=1.0"}
    },
    "SGD": {"training": {"optim": "sgd"}},
}
SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "linear": {"training": {"lr_scheduler_type": "linear"}},
    "cosine": {"training": {"lr_scheduler_type": "cosine"}},
    "rex": {"lr_schedule": "rex()"},
}
PLAIN = "constant_with_warmup"
CONSTANT: Mapping[str, Any] = {"training": {"lr_scheduler_type": PLAIN}}


@dataclass(frozen=True)
class Job:
    """One run: an optimiser, a rate and a schedule."""

    optimizer: str
    rate: float
    schedule: str = PLAIN

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.optimizer.lower()}-{self.rate:g}-{self.schedule}"

    def set_options(self, options: TrainOptions) -> TrainOptions:
        """The options of a run with this optimiser, rate and schedule."""
        chosen, moved = OPTIMIZERS[self.optimizer], SCHEDULES.get(self.schedule, CONSTANT)
        training = {**options.training, **moved.get("training", {}), **chosen.get("training", {})}
        schedule: str | None = moved.get("lr_schedule")
        return replace(options, lr=self.rate, training=training, lr_schedule=schedule)


Curves = Mapping[str, Any]


def make_base(pocket: bool) -> TrainOptions:
    """What all runs have in common.

    Args:
        pocket: two steps of a pocket model instead.
    """
    if pocket:
        return TrainOptions(style="warm", steps=2, m=2, prompts_per_step=2, cpu=True, seed=SEED, save_every=0)
    return make_options("one-hop", Arm("GARL .75", "garl(q=0.75)"), SEED, RATES[0], STEPS)


def run_job(job: Job, base: TrainOptions, place: Path, budget: RunBudget) -> Curves | None:
    """The curves of a run; None where it is not there and none is to be begun.

    Args:
        job: which.
        base: what all runs have in common.
        place: the folder of the runs.
        budget: whether a missing run is made.
    """
    folder = place / job.folder
    store = (KEPT / place.name if place == RUNS / "optimizers" else place) / f"{job.folder}.json"
    if budget.is_spent or (job.optimizer == "GaLore" and find_spec("galore_torch") is None):
        return read_small_result(store)
    options = job.set_options(base)

    def make() -> dict[str, Any]:
        train(options, folder / "run", Console(quiet=True), resume=(folder / "run").exists())
        remove_weights(folder)
        return read_curves(folder / "run" / "metrics.jsonl")

    facts = {"train": options.changed(), "weights": hash_initial_weights(options)}
    found: Curves = load_or_compute(folder, facts, make, store, resume=True)
    return found


def choose_rate(found: Mapping[Job, Curves]) -> float | None:
    """The rate at which AdamW ends highest; None before it ran."""
    rates = [rate for rate in RATES if Job("AdamW", rate) in found]
    return max(rates, key=lambda rate: score_end(found[Job("AdamW", rate)]), default=None)


def score_end(curves: Curves) -> float:
    """log10 p̂ of the gold answers, the median over groups, as the mean of the last steps."""
    return statistics.mean(list_likelihoods(curves)[-LAST:])


def list_likelihoods(curves: Curves) -> list[float]:
    """log10 p̂, step by step, where it was told."""
    return [value for value in curves["p_hat"] if value is not None]


def run_all(base: TrainOptions, place: Path, budget: RunBudget, console: Console) -> dict[Job, Curves]:
    """The sweep, then the schedules at the rate that it chose.

    Args:
        base: what all runs have in common.
        place: the folder of the runs.
        budget: whether missing runs are made.
        console: is told of each run.
    """

    def run(jobs: Iterator[Job]) -> dict[Job, Curves]:
        return run_jobs(
            jobs,
            lambda job: run_job(job, base, place, budget),
            lambda job, curves: f"{job.folder}: log10 likelihood {score_end(curves):.2f}",
            console,
        )

    found = run(Job(name, rate) for name in OPTIMIZERS for rate in RATES)
    rate = choose_rate(found)
    return found if rate is None else found | run(Job("AdamW", rate, schedule) for schedule in SCHEDULES)


def write_rows(found: Mapping[Job, Curves]) -> str:
    """One line for each run: likelihood in the first step and the last ones, success of the last ones."""
    lines = []
    for job, curves in found.items():
        likely, success = list_likelihoods(curves), 100 * statistics.mean(curves["curve"][-LAST:])
        schedule = "constant" if job.schedule == PLAIN else job.schedule
        cells = (
            job.optimizer,
            schedule,
            f"{job.rate:g}",
            f"{likely[0]:.2f} → {score_end(curves):.2f}",
            f"{success:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pocket", action="store_true", help="two steps of a pocket model, no page")
    asked, budget = parse_budget(parser)
    console = Console(highlight=False)
    found = run_all(make_base(asked.pocket), RUNS / f"optimizers{'-pocket' * asked.pocket}", budget, console)
    if asked.pocket:
        console.print(write_rows(found))
    elif found:
        said = {"steps": STEPS, "machine": machine_line(), "rows": write_rows(found)}
        insert(PAGE, "optimisers", Template(TEXT.read_text()).substitute(said))


if __name__ == "__main__":
    main()
