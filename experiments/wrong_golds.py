"""Who memorises wrong gold answers, on the pocket model: part of `make results-noise`.

Few training questions, each met many times, a share of them with a wrong gold answer. Then the model is asked the very
questions whose golds were wrong: does it say the wrong gold, or the right answer? Half an hour on two quiet cores.
"""

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import torch
from open_questions import noisy, plain
from page import RUNS, insert, kept, list_other_golds, machine_line, percent_cell, write_jsonl
from rich.console import Console

from qredit import tasks
from qredit.runs.experiment import EvalSpec, evaluate_model, hash_initial_weights, load_or_compute, read_curves
from qredit.runs.library_logging import silence_libraries
from qredit.runs.options import TrainOptions
from qredit.runs.parallel import run_parallel
from qredit.runs.train import train

FOLDER, PAGE = RUNS / "wrong-golds", Path("docs/results.md")
TEXT = Path(__file__).with_name("wrong_golds.md.in")
QUESTIONS = 48  # training questions: each is met some 13 times
STEPS, SEEDS, SWEEP_SEED, SWEEP_STEPS = 80, (0, 1, 2, 3, 4), 100, 40
SHARES = (0.1, 0.3)
RATES = (3e-4, 1e-4, 1e-3)  # in order of preference among equals
ARMS = {  # objective: whose learning rate it takes
    "logprob()": "logprob()",
    "jepo()": "logprob()",
    "garl(q=0.5)": "garl(q=0.75)",
    "garl(q=0.75)": "garl(q=0.75)",
    "garl(q=1.0)": "garl(q=0.75)",
    "garl(q=auto())": "garl(q=0.75)",
}
HELD, SEEN = EvalSpec(questions=128), EvalSpec(questions=QUESTIONS, split="train")
COLD = TrainOptions(steps=STEPS, save_every=0, cpu=True)


def find_data(share: float, seed: int) -> dict[str, Path]:
    """Folders of the questions as given, and of those with a wrong gold, as given and put right."""
    return {name: FOLDER / "data" / f"{name}-{share:g}-{seed}" for name in ("given", "wrong", "right")}


def write_data(share: float, seed: int) -> None:
    """Training questions, and those of them whose gold is wrong: once with that gold, once with the right answer.

    A wrong gold is another country of the same context.

    Args:
        share: of wrong golds; their number is exact.
        seed: which questions, and which of them.
    """
    rng = random.Random(seed)
    examples = rng.sample(list(tasks.get("pocket-hotpot").load(None, "train", "cold")), QUESTIONS)
    wrong = set(rng.sample(range(QUESTIONS), round(share * QUESTIONS)))
    rows: dict[str, list[dict[str, Any]]] = {"given": [], "wrong": [], "right": []}
    for number, example in enumerate(examples):
        own = {"id": example.id, "prompt": example.prompt, "answer": example.answer}
        others = sorted(list_other_golds(str(example.prompt), example.gold))
        given = own | {"answer": rng.choice(others)} if number in wrong else own
        rows["given"].append(given)
        if number in wrong:
            rows["wrong"].append(given)
            rows["right"].append(own)
    for name, folder in find_data(share, seed).items():
        write_jsonl(folder / "train.jsonl", rows[name])


def run_arm(objective: str, rate: float, share: float, seed: int, steps: int) -> dict[str, Any]:
    """One run, and what it says to held-out questions and to those whose gold was wrong."""
    torch.set_num_threads(1)
    data = find_data(share, seed)
    options = noisy(replace(COLD, objective=objective, lr=rate, seed=seed, steps=steps), data["given"])
    folder = FOLDER / f"{plain(objective)}-{rate:g}-{share:g}-{seed}-{steps}"

    def make() -> dict[str, Any]:
        final = str(train(options, folder / "run", Console(quiet=True)).final)
        asked = {"held": (COLD, HELD), **{n: (noisy(options, data[n]), SEEN) for n in ("wrong", "right") if share}}
        found = {name: evaluate_model(given, final, held)["p@1"]["value"] for name, (given, held) in asked.items()}
        return found | read_curves(folder / "run" / "metrics.jsonl")

    facts = {"train": {**options.changed(), "model": Path(options.model).name}, "weights": hash_initial_weights(COLD)}
    return load_or_compute(folder, facts | {"held": asdict(HELD), "seen": asdict(SEEN)}, make, kept(folder))


def run_all(
    console: Console, seeds: Sequence[int]
) -> tuple[dict[str, float], dict[tuple[str, float, int], dict[str, Any]]]:
    """The learning rates, chosen on right golds, and every arm's result by objective, share and seed."""
    swept = [(leader, rate) for leader in dict.fromkeys(ARMS.values()) for rate in RATES]
    for share, seed in [(0.0, SWEEP_SEED), *((share, seed) for share in SHARES for seed in seeds)]:
        write_data(share, seed)  # here: two runs at once would write the same files
    tried = run_parallel("rates", [partial(run_arm, *one, 0.0, SWEEP_SEED, SWEEP_STEPS) for one in swept], console)
    height = {one: result["held"] for one, result in zip(swept, tried, strict=True)}
    rates = {leader: max(RATES, key=lambda rate: height[leader, rate]) for leader in set(ARMS.values())}
    jobs = [(objective, share, seed) for seed in seeds for share in SHARES for objective in ARMS]
    found = run_parallel(
        "arms", [partial(run_arm, o, rates[ARMS[o]], share, seed, STEPS) for o, share, seed in jobs], console
    )
    return rates, dict(zip(jobs, found, strict=True))


def write_rows(
    found: Mapping[tuple[str, float, int], Mapping[str, Any]], rates: Mapping[str, float], seeds: Sequence[int]
) -> Iterator[str]:
    """One line for each objective."""
    for objective, leader in ARMS.items():
        cells = [
            percent_cell([found[objective, share, seed][name] for seed in seeds])
            for share in SHARES
            for name in ("held", "wrong", "right")
        ]
        yield f"| `{objective}` | {rates[leader]:g} | {' | '.join(cells)} |"


def main() -> None:
    """Run what is missing and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="run and show so many of the seeds")
    seeds = SEEDS[: parser.parse_args().seeds]
    silence_libraries()
    rates, found = run_all(Console(highlight=False), seeds)
    text = Template(TEXT.read_text()).substitute(
        rows="\n".join(write_rows(found, rates, seeds)), machine=machine_line(), seeds=", ".join(map(str, seeds))
    )
    insert(PAGE, "wrong golds", text)


if __name__ == "__main__":
    main()
