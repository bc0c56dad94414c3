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
from typing import Any, NamedTuple

from open_questions import plain
from page import RUNS, insert, kept, machine_line, percent_cell, read_small_result
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit import pocket
from qredit.runs.experiment import (
    EvalSpec,
    Variant,
    evaluate_model,
    hash_initial_weights,
    load_or_compute,
    run_variant,
)
from qredit.runs.options import TrainOptions
from qredit.runs.sft import finetune
from qredit.runs.warm_start import THEN, split_arm

FOLDER, PAGE = RUNS / "path-star", Path("docs/results.md")
TEXT = Path(__file__).with_name("path_star.md.in")
DEGREE, LENGTH, NODES, COMPLETION = 2, 3, 10, 20
STEPS, SEEDS, SWEEP_SEED, SWEEP_STEPS = 200, (0, 1, 2), 100, 100
RATES = (1e-3, 3e-4)  # in order of preference among equals
SHOWN, HALF = f"sft(steps={STEPS})", STEPS // 2


class Arm(NamedTuple):
    """One line of the table.

    Attributes:
        objective: in its text form; with `sft(…) then` fine-tuning on the answers comes first, alone it is all.
        leader: whose learning rate it takes.
        steps: of the run, and of the fine-tuning before it.
    """

    objective: str
    leader: str
    steps: int = STEPS


ARMS = (
    Arm("grpo()", "garl(q=0.75)"),
    Arm(f"dr_grpo({COMPLETION})", "garl(q=0.75)"),
    Arm("logprob()", "logprob()"),
    Arm("jepo()", "logprob()"),
    Arm("garl(q=0.75)", "garl(q=0.75)"),
    Arm("paft(q=0.75)", "garl(q=0.75)"),
    Arm("garl(q=0.75)", "logprob()"),  # at the other rate, too, since log-prob was ahead with it
    Arm("paft(q=0.75)", "logprob()"),
    Arm("garl(q=1.0)", "logprob()"),
    Arm("garl(q=linear(1.0, 0.0))", "logprob()"),  # ends in rewards, as the arms that begin with fine-tuning do
    Arm("garl(q=auto())", "logprob()"),
    Arm("garl(q=auto())", "garl(q=0.75)"),
    Arm(SHOWN, SHOWN),
    Arm(f"{SHOWN} then grpo()", SHOWN),
    Arm(f"sft(steps={STEPS}, lr={RATES[0]}) then grpo()", "garl(q=0.75)"),  # at the rate above it fell
    Arm(f"sft(steps={HALF}, lr={RATES[0]}) then grpo()", "garl(q=0.75)", HALF),  # as many steps in all as the others
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
    alone = objective == SHOWN
    shown, run = split_arm(f"{objective}{THEN}grpo()" if alone else objective)
    shown = None if shown is None else replace(shown, steps=steps, lr=shown.lr or rate)
    options = replace(STAR, model=model, objective=run, lr=rate, seed=seed, steps=steps)
    held = CHOOSING if seed == SWEEP_SEED else HELD

    def make() -> dict[str, Any]:
        if alone and shown is not None:
            final = finetune(shown.make_options(options), folder / "sft", Console(quiet=True)).final
            found = evaluate_model(options, str(final), held)
            return {name: value["value"] for name, value in found.items()} | {"intervals": found, "curve": []}
        return run_variant(Variant(options, warm_start=shown), folder / "arm", held, Console(quiet=True))

    before: dict[str, Any] = {} if shown is None else {"shown": shown.as_dict(), "alone": alone}
    train = {**options.changed(), "model": "finqa"}
    facts = {"train": train, "weights": hash_initial_weights(options), "held": asdict(held), **before}
    return load_or_compute(folder, facts, make, kept(folder))


Heights = Mapping[tuple[str, float], float]
"""p@1 of the sweep, by objective and learning rate."""


def run_all(budget: RunBudget, console: Console) -> tuple[Heights, dict[Job, dict[str, Any]]]:
    """The sweep, and the results of all arms that are there, seed by seed."""

    def run(jobs: Iterable[Job]) -> dict[Job, dict[str, Any]]:
        return run_jobs(
            jobs, lambda job: run_arm(job, budget), lambda job, told: f"{job}: {100 * told['p@1']:.1f} %", console
        )

    tried = run((leader, rate, SWEEP_SEED, SWEEP_STEPS) for leader in list_leaders() for rate in RATES)
    heights = {job[:2]: result["p@1"] for job, result in tried.items()}
    rates = choose_rates(heights)
    return heights, run((arm.objective, rates[arm.leader], seed, arm.steps) for seed in SEEDS for arm in ARMS)


def list_leaders() -> list[str]:
    """The arms that the sweep tries."""
    return list(dict.fromkeys(arm.leader for arm in ARMS))


def choose_rates(heights: Heights) -> dict[str, float]:
    """The better learning rate of each arm that the sweep tries."""
    return {leader: max(RATES, key=lambda rate: heights.get((leader, rate), -1.0)) for leader in list_leaders()}


def write_sweep(heights: Heights) -> str:
    """What the sweep showed, in a sentence's words."""
    told = []
    for leader in list_leaders():
        own = {rate: heights[leader, rate] for rate in RATES if (leader, rate) in heights}
        told.append(f"`{leader}` " + " and ".join(f"{100 * p:.1f} % at {rate:g}" for rate, p in own.items()))
    return ", ".join(told)


def write_rows(found: Mapping[Job, Mapping[str, Any]], rates: Mapping[str, float]) -> Iterator[str]:
    """One line for each arm that was run."""
    for objective, leader, _ in ARMS:
        seeds = [result for job, result in found.items() if job[:2] == (objective, rates[leader])]
        if not seeds:
            continue
        cells = [percent_cell([one[name] for one in seeds]) for name in ("p@1", "p@16", "m@16")]
        seen = "–" if objective == SHOWN else "yes" if any(sum(one["curve"]) for one in seeds) else "never"
        yield f"| `{objective}` | {rates[leader]:g} | {len(seeds)} | {' | '.join(cells)} | {seen} |"


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    heights, found = run_all(budget, Console(highlight=False))
    text = Template(TEXT.read_text()).substitute(
        rows="\n".join(write_rows(found, choose_rates(heights))),
        swept=write_sweep(heights),
        sweep_steps=SWEEP_STEPS,
        machine=machine_line(),
        degree=DEGREE,
        length=LENGTH,
        nodes=NODES,
        steps=STEPS,
        half=HALF,
        guess=f"{100 / DEGREE:.0f}",
    )
    insert(PAGE, "path-star", text)


if __name__ == "__main__":
    main()
