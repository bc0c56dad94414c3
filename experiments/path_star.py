"""Star graphs, where rewards alone stay at zero, from a pocket model that never saw one: part of `make results-noise`.

The task of arXiv 2510.03971, smaller. Whoever learns only how an answer looks is right once in as many cases as the
graph has arms. `--minutes` begins no run after so many, `--write` writes the table of what is there. Half an
hour of a core.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
from page import RUNS, insert, kept, machine_line, percent_cell, read_small_result
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit import pocket
from qredit.runs.experiment import EvalSpec, Variant, hash_initial_weights, load_or_compute, run_variant
from qredit.runs.options import TrainOptions

FOLDER, PAGE = RUNS / "path-star", Path("docs/results.md")
TEXT = Path(__file__).with_name("path_star.md.in")
DEGREE, LENGTH, NODES, COMPLETION = 2, 3, 10, 20
STEPS, SEEDS, SWEEP_SEED, SWEEP_STEPS = 200, (0, 1, 2), 100, 100
RATES = (1e-3, 3e-4)  # in order of preference among equals
ARMS = (  # objective, and whose learning rate it takes; GARL's other rate beside its own, since log-prob was ahead
    ("grpo()", "garl(q=0.75)"),
    (f"dr_grpo({COMPLETION})", "garl(q=0.75)"),
    ("logprob()", "logprob()"),
    ("jepo()", "logprob()"),
    ("garl(q=0.75)", "garl(q=0.75)"),
    ("paft(q=0.75)", "garl(q=0.75)"),
    ("garl(q=0.75)", "logprob()"),
    ("garl(q=1.0)", "logprob()"),
)
HELD, CHOOSING = EvalSpec(questions=256), EvalSpec(questions=64, split="validation")
STAR = TrainOptions(
    task=f"path-star(degree={DEGREE}, length={LENGTH}, nodes={NODES})",
    max_completion_length=COMPLETION,
    answer_budget=8,
    save_every=0,
    cpu=True,
)


Job = tuple[str, float, int, int]
"""Objective, learning rate, seed, steps."""


def run_arm(job: Job, budget: RunBudget) -> dict[str, Any] | None:
    """One run from the pocket model of finqa, which knows digits and has never seen a graph.

    Args:
        job: which.
        budget: whether a missing run is made; where not, None stands for it.
    """
    objective, rate, seed, steps = job
    folder = FOLDER / f"{plain(objective)}-{rate:g}-{seed}-{steps}"
    if budget.is_spent:
        return read_small_result(kept(folder))
    model = str(pocket.get_model_path("finqa"))
    options = replace(STAR, model=model, objective=objective, lr=rate, seed=seed, steps=steps)
    held = CHOOSING if seed == SWEEP_SEED else HELD

    def make() -> dict[str, Any]:
        return run_variant(Variant(options), folder / "arm", held, Console(quiet=True))

    facts = {"train": {**options.changed(), "model": "finqa"}, "weights": hash_initial_weights(options)}
    return load_or_compute(folder, facts | {"held": asdict(held)}, make, kept(folder))


def run_all(budget: RunBudget, console: Console) -> tuple[dict[str, float], dict[Job, dict[str, Any]]]:
    """The learning rates, and the results of all arms that are there, seed by seed."""

    def run(jobs: Iterable[Job]) -> dict[Job, dict[str, Any]]:
        return run_jobs(
            jobs, lambda job: run_arm(job, budget), lambda job, told: f"{job}: {100 * told['p@1']:.1f} %", console
        )

    leaders = list(dict.fromkeys(leader for _, leader in ARMS))
    tried = run((leader, rate, SWEEP_SEED, SWEEP_STEPS) for leader in leaders for rate in RATES)
    height = {job[:2]: result["p@1"] for job, result in tried.items()}
    rates = {leader: max(RATES, key=lambda rate: height.get((leader, rate), -1.0)) for leader in leaders}
    return rates, run((objective, rates[leader], seed, STEPS) for seed in SEEDS for objective, leader in ARMS)


def write_rows(found: Mapping[Job, Mapping[str, Any]], rates: Mapping[str, float]) -> Iterator[str]:
    """One line for each objective that was run."""
    for objective, leader in ARMS:
        seeds = [result for job, result in found.items() if job[:2] == (objective, rates[leader])]
        if not seeds:
            continue
        cells = [percent_cell([one[name] for one in seeds]) for name in ("p@1", "p@16", "m@16")]
        seen = "yes" if any(sum(one["curve"]) for one in seeds) else "never"
        yield f"| `{objective}` | {rates[leader]:g} | {len(seeds)} | {' | '.join(cells)} | {seen} |"


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    rates, found = run_all(budget, Console(highlight=False))
    text = Template(TEXT.read_text()).substitute(
        rows="\n".join(write_rows(found, rates)),
        machine=machine_line(),
        degree=DEGREE,
        length=LENGTH,
        nodes=NODES,
        steps=STEPS,
        guess=f"{100 / DEGREE:.0f}",
    )
    insert(PAGE, "path-star", text)


if __name__ == "__main__":
    main()
