"""The search for the paper's warm collapse on the pocket model: part of `make results-noise`.

The paper (arXiv 2604.25907) sees GARL fall to zero on warm HotPotQA where GRPO falls later and PAFT does not. At a
rate that is ten times too high everything collapses within ten steps (`open_questions.py`). The plan, written before
the first run: rates from the one that works, 3e-4, to half of that one, for far more steps than learning takes, so
that a slow collapse has the time that it took in the paper. Steps of the higher rates were cut from 160 before their
first run. GRPO, GARL at the two q of the paper's report, PAFT, and GARL without the pathwise term. Seed 0 at every
rate; seeds 1 and 2 at the rates where GRPO keeps three quarters of its peak and a GARL does not, or, where there is
none, at the highest rate that GRPO survives. A run collapsed if its last validation is below half of its highest.

Runs lie in runs/results/warm-collapse, small results in experiments/kept/warm-collapse. `--minutes` begins no run after
so many, `--write` writes the table of what is there and trains nothing. About an hour on a quiet core.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
from page import RUNS, insert, kept, machine_line, percent_cell, read_small_result
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit.runs.experiment import hash_initial_weights, load_or_compute
from qredit.runs.options import TrainOptions
from qredit.runs.train import train

FOLDER, PAGE = RUNS / "warm-collapse", Path("docs/results.md")
TEXT = Path(__file__).with_name("warm_collapse.md.in")
GRPO = "grpo()"
OBJECTIVES = (GRPO, "garl(q=0.25)", "garl(q=0.75)", "garl(q=0.75, pathwise=False)", "paft(q=0.75)")
STEPS = {3e-4: 160, 6e-4: 100, 1e-3: 100, 1.5e-3: 100}
RATES, SEEDS = tuple(STEPS), (0, 1, 2)
WARM = TrainOptions(style="warm", eval_every=10, eval_questions=64, eval_k=4, save_every=0, cpu=True, m=8)

Job = tuple[str, float, int]
"""Objective, learning rate, seed."""
Found = Mapping[Job, list[float]]
"""The validations of each run that is there, in order."""


def run_job(job: Job, budget: RunBudget) -> list[float] | None:
    """The validations of a run; None where it is not there and none is to be begun.

    Args:
        job: which.
        budget: whether a missing run is made.
    """
    objective, rate, seed = job
    folder = FOLDER / f"{plain(objective)}-{rate:g}-{seed}"
    if budget.is_spent:
        known = read_small_result(kept(folder))
        return None if known is None else known["validation"]
    options = replace(WARM, objective=objective, lr=rate, seed=seed, steps=STEPS[rate])

    def make() -> dict[str, Any]:
        train(options, folder / "run", Console(quiet=True))
        lines = (folder / "run" / "validation.jsonl").read_text().splitlines()
        return {"validation": [json.loads(line)["p@1"] for line in lines]}

    facts = {"train": options.changed(), "weights": hash_initial_weights(options)}
    found: list[float] = load_or_compute(folder, facts, make, kept(folder))["validation"]
    return found


def is_collapsed(validations: list[float], below: float = 0.5) -> bool:
    """Whether the last is under that share of the highest."""
    return validations[-1] < below * max(validations)


def choose_rates(found: Found) -> list[float]:
    """Where further seeds are run: see the plan."""
    fallen = [job for job, one in found.items() if job[0].startswith("garl") and job[2] == 0 and is_collapsed(one)]
    survived = [rate for rate in RATES if (GRPO, rate, 0) in found and not is_collapsed(found[GRPO, rate, 0], 0.75)]
    parted = [rate for rate in survived if any(job[1] == rate for job in fallen)]
    return parted or survived[-1:]


def run_all(budget: RunBudget, console: Console) -> dict[Job, list[float]]:
    """Seed 0 at every rate, then further seeds where the plan wants them."""

    def run(jobs: Iterator[Job]) -> dict[Job, list[float]]:
        return run_jobs(
            jobs,
            lambda job: run_job(job, budget),
            lambda job, told: f"{job[0]} at {job[1]:g}, seed {job[2]}: {max(told):.2f} → {told[-1]:.2f}",
            console,
        )

    found = run((objective, rate, 0) for rate in reversed(RATES) for objective in OBJECTIVES)
    rates = choose_rates(found)
    return found | run((objective, rate, seed) for rate in rates for seed in SEEDS[1:] for objective in OBJECTIVES)


def write_rows(found: Found) -> str:
    """One line for each objective, rate by rate: runs that collapsed, peak and last validation."""
    lines = []
    for rate in RATES:
        for objective in OBJECTIVES:
            own = [one for seed in SEEDS if (one := found.get((objective, rate, seed))) is not None]
            if own:
                counted = f"{sum(map(is_collapsed, own))} of {len(own)}"
                cells = (percent_cell([max(one) for one in own]), percent_cell([one[-1] for one in own]))
                lines.append(f"| {rate:g} | `{objective}` | {counted} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    if found := run_all(budget, Console(highlight=False)):
        said = {
            "steps": STEPS[RATES[-1]],
            "most": STEPS[RATES[0]],
            "machine": machine_line(),
            "rows": write_rows(found),
        }
        said |= {"run": sum(job[2] == 0 for job in found), "planned": len(RATES) * len(OBJECTIVES)}
        insert(PAGE, "warm collapse", Template(TEXT.read_text()).substitute(said))


if __name__ == "__main__":
    main()
