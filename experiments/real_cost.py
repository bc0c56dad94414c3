"""Seconds a step of every arm on the real model, while nothing else runs: the column `s` of its tables.

Five steps from the untrained model on two threads, one arm after the other; shown is the median of the last four. What
an arm is shown before its run is left out, so the first steps of "SFT on answers, GRPO" are those of GRPO. Runs beside
other work say nothing about time, and a later step is shorter where answers have become so. Small results are kept in
experiments/kept/real; `--minutes` begins no run after so many. Half an hour of two quiet cores.
"""

import argparse
import json
import shutil
import statistics
from typing import Any

import real_plan as plan
import torch
from real_model import FOLDER, STORE, choose_rates, choose_wording, list_arms_of, make_options, name_cost
from rich.console import Console
from rich.progress import track
from run_budget import parse_budget

from qredit.runs.experiment import EvalSpec, Variant, collect_facts, load_or_compute
from qredit.runs.train import train

STEPS, THREADS = 5, 2


def measure(task: str, arm: plan.Arm, rate: float) -> dict[str, Any]:
    """The seconds of each step, and the median of the later ones.

    Args:
        task: whose questions.
        arm: the method.
        rate: learning rate.
    """
    options, folder = make_options(task, arm, 0, rate, STEPS), FOLDER / name_cost(task, arm)

    def make() -> dict[str, Any]:
        train(options, folder / "run", Console(quiet=True))
        told = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        steps = [one["step_time"] for one in told if "step_time" in one]
        shutil.rmtree(folder / "run")
        return {"seconds_of_steps": steps, "median": statistics.median(steps[1:])}

    facts = collect_facts(Variant(options), EvalSpec())
    return load_or_compute(folder, facts, make, STORE / f"{folder.name}.json")


def main() -> None:
    """Measure what is missing; `real_model.py --write` writes it."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    rates = choose_rates(Console(quiet=True), 1)
    for task in plan.TASKS:
        choose_wording(task)  # on one thread, as it was kept
    torch.set_num_threads(THREADS)
    arms = [(task, arm) for task in plan.TASKS for arm in list_arms_of(task)]
    for of, arm in track(arms, "seconds of a step"):
        if not budget.is_spent:
            measure(of, arm, rates[arm.rate_of])


if __name__ == "__main__":
    main()
