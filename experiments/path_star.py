"""Star graphs, where rewards alone stay at zero, from a pocket model that never saw one: part of `make results-noise`.

The task of arXiv 2510.03971, smaller. Whoever learns only how an answer looks is right once in as many cases as the
graph has arms. Half an hour on two quiet cores.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import torch
from open_questions import plain
from page import RUNS, insert, kept, machine_line, percent_cell
from rich.console import Console

from qredit import pocket
from qredit.runs.experiment import EvalSpec, Variant, hash_initial_weights, load_or_compute, run_variant
from qredit.runs.library_logging import silence_libraries
from qredit.runs.options import TrainOptions
from qredit.runs.parallel import run_parallel

FOLDER, PAGE = RUNS / "path-star", Path("docs/results.md")
TEXT = Path(__file__).with_name("path_star.md.in")
DEGREE, LENGTH, NODES = 2, 3, 10
STEPS, SEEDS, SWEEP_SEED, SWEEP_STEPS = 300, (0, 1, 2), 100, 100
RATES = (1e-3, 3e-4)  # in order of preference among equals
ARMS = {  # objective: whose learning rate it takes
    "grpo()": "garl(q=0.75)",
    "dr_grpo()": "garl(q=0.75)",
    "logprob()": "logprob()",
    "jepo()": "logprob()",
    "garl(q=0.75)": "garl(q=0.75)",
    "paft(q=0.75)": "garl(q=0.75)",
}
HELD, CHOOSING = EvalSpec(questions=256), EvalSpec(questions=64, split="validation")
STAR = TrainOptions(
    task=f"path-star(degree={DEGREE}, length={LENGTH}, nodes={NODES})",
    max_completion_length=20,
    answer_budget=8,
    save_every=0,
    cpu=True,
)


def run_arm(objective: str, rate: float, seed: int, steps: int) -> dict[str, Any]:
    """One run from the pocket model of finqa, which knows digits and has never seen a graph."""
    torch.set_num_threads(1)
    model = str(pocket.get_model_path("finqa"))
    options = replace(STAR, model=model, objective=objective, lr=rate, seed=seed, steps=steps)
    folder = FOLDER / f"{plain(objective)}-{rate:g}-{seed}-{steps}"
    held = CHOOSING if seed == SWEEP_SEED else HELD

    def make() -> dict[str, Any]:
        return run_variant(Variant(options), folder / "arm", held, Console(quiet=True))

    facts = {"train": {**options.changed(), "model": "finqa"}, "weights": hash_initial_weights(options)}
    return load_or_compute(folder, facts | {"held": asdict(held)}, make, kept(folder))


def run_all(console: Console) -> tuple[dict[str, float], dict[tuple[str, int], dict[str, Any]]]:
    """The learning rates, and every arm's result by objective and seed."""
    swept = [(leader, rate) for leader in dict.fromkeys(ARMS.values()) for rate in RATES]
    tried = run_parallel("rates", [partial(run_arm, *one, SWEEP_SEED, SWEEP_STEPS) for one in swept], console)
    height = {one: result["p@1"] for one, result in zip(swept, tried, strict=True)}
    rates = {leader: max(RATES, key=lambda rate: height[leader, rate]) for leader in set(ARMS.values())}
    jobs = [(objective, seed) for seed in SEEDS for objective in ARMS]
    found = run_parallel("arms", [partial(run_arm, o, rates[ARMS[o]], seed, STEPS) for o, seed in jobs], console)
    return rates, dict(zip(jobs, found, strict=True))


def write_rows(found: Mapping[tuple[str, int], Mapping[str, Any]], rates: Mapping[str, float]) -> Iterator[str]:
    """One line for each objective."""
    for objective, leader in ARMS.items():
        seeds = [found[objective, seed] for seed in SEEDS]
        cells = [percent_cell([one[name] for one in seeds]) for name in ("p@1", "p@16", "m@16")]
        reward = sum(sum(one["curve"]) for one in seeds)
        yield f"| `{objective}` | {rates[leader]:g} | {' | '.join(cells)} | {'yes' if reward else 'never'} |"


def main() -> None:
    """Run what is missing and write the section."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    rates, found = run_all(Console(highlight=False))
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
