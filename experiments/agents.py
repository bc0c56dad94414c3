"""A cold search agent, trained by six objectives on equal rollouts: `make results-agents`, in docs/results.md.

The plan, written before the first run: the pocket search model (`pocket_models.search`) behind cold prompts. It
searches now and then, and its answers have a form that is as good as never right. Seeds 0 to 2, one learning rate,
`STEPS` steps of 8 questions × 8 rollouts. Success is held-out p@1, searches and turns are means over the training
rollouts of the last five steps. Expected: GRPO and GiGPO see no reward; log-prob, GARL and PAFT see likelihoods from
the first step. IGPO alone among the rules of rewards sees gains in the answer's likelihood. Seeds come one after the
other, within a seed the arms in the order of `ARMS`, so that what is cut off has whole seeds.

Runs are kept in runs/results/agents, their small results in experiments/kept/agents. `--minutes` begins no run after so
many, `--write` writes the table of what is there and trains nothing.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
from page import RUNS, insert, kept, machine_line, percent_cell, range_cell, read_small_result, read_small_results
from rich.console import Console
from run_budget import parse_budget, run_jobs

from qredit.runs.experiment import EvalSpec, evaluate_model, hash_initial_weights, load_or_compute, read_curves
from qredit.runs.options import TrainOptions
from qredit.runs.train import train

FOLDER, PAGE = RUNS / "agents", Path("docs/results.md")
TEXT = Path(__file__).with_name("agents.md.in")
ARMS = ("garl(q=0.75)", "grpo()", "paft(q=0.75)", "logprob()", "igpo()", "gigpo()")
SEEDS, STEPS, LAST = (0, 1, 2), 40, 5
HELD = EvalSpec(questions=64, k=8)
COLD = TrainOptions(
    task="pocket-hotpot",
    env="pocket-search",
    style="cold",
    lr=3e-4,
    steps=STEPS,
    m=8,
    prompts_per_step=8,
    max_turns=4,
    max_completion_length=32,
    answer_budget=8,
    observation_budget=48,
    save_every=0,
    cpu=True,
)
COUNTED = {"searches": "episode/searches", "turns": "episode/turns"}


def read_episodes(metrics: Path) -> dict[str, list[float]]:
    """Of each step, searches and turns of an episode; what no episode of a step did is 0."""
    entries = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [entry for entry in entries if "episode/turns" in entry]
    return {name: [entry.get(metric, 0.0) for entry in steps] for name, metric in COUNTED.items()}


def find_folder(objective: str, seed: int) -> Path:
    """Where a run is kept."""
    return FOLDER / f"{plain(objective)}-{seed}"


def run_arm(objective: str, seed: int, train_anew: bool) -> dict[str, Any] | None:
    """One run and its success on held-out questions; None where it is not there and none is to be made.

    Args:
        objective: in its text form.
        seed: of the run.
        train_anew: whether a missing run is made.
    """
    folder = find_folder(objective, seed)
    if not train_anew:
        return read_small_result(kept(folder))
    return run_agent(replace(COLD, objective=objective, seed=seed), folder)


def run_agent(options: TrainOptions, folder: Path) -> dict[str, Any]:
    """A run, its success on held-out questions and what its episodes were like, from the folder that it is kept in."""

    def make() -> dict[str, Any]:
        final = str(train(options, folder / "run", Console(quiet=True)).final)
        metrics = folder / "run" / "metrics.jsonl"
        return evaluate_model(options, final, HELD) | read_curves(metrics) | read_episodes(metrics)

    # Of the model its weights say which it is: its path is that of this machine.
    changed = {name: value for name, value in options.changed().items() if name != "model"}
    facts = {"train": changed, "weights": hash_initial_weights(options), "held": asdict(HELD)}
    return load_or_compute(folder, facts, make, kept(folder))


def write_table(found: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """One line for each objective that has a run: mean and range over its seeds."""
    lines = []
    for objective in ARMS:
        own = [result for (name, _), result in found.items() if name == objective]
        if not own:
            continue
        cells = [percent_cell([one["p@1"]["value"] for one in own])]
        cells += [range_cell([statistics.mean(one[name][-LAST:]) for one in own]) for name in COUNTED]
        lines.append(f"| `{objective}` | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tell_agent_effects() -> dict[str, str]:
    """What the page of each method says of its runs here, by name; read from what is kept."""
    found = read_small_results({(one, seed): kept(find_folder(one, seed)) for seed in SEEDS for one in ARMS})
    success: dict[str, list[float]] = {}
    for (objective, _), result in found.items():
        success.setdefault(objective, []).append(result["p@1"]["value"])
    grpo = success.pop("grpo()", [])
    return {
        objective.partition("(")[0]: f"p@1 {percent_cell(own)} %. GRPO: p@1 {percent_cell(grpo)} % "
        f"(`{objective}`, {len(own)} seeds; [a cold search agent](../results.md#a-cold-search-agent))"
        for objective, own in success.items()
        if grpo
    }


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_jobs(
        [(objective, seed) for seed in SEEDS for objective in ARMS],
        lambda job: run_arm(*job, not budget.is_spent),
        lambda job, result: f"{job[0]} seed {job[1]}: p@1 {result['p@1']['value']:.3f}",
        Console(highlight=False),
    )
    if found:
        whole = Template(TEXT.read_text()).safe_substitute(rows=write_table(found), machine=machine_line())
        insert(PAGE, "agents", whole)


if __name__ == "__main__":
    main()
