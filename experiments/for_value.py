"""Do values of training examples find wrong answers? A pocket model and SmolLM2: part of `make results-data`.

The plan, fixed before the runs: shares of 10 % and 30 % wrong golds, five seeds of the pocket task (which questions,
and which golds are wrong), three of SmolLM2's. The pocket model is asked as it comes and after a short fine-tuning on
the same golds. Values are those of `qredit value`. Small results are kept in experiments/kept/for-value; what is there
is not made again. Half a minute for each pocket run on a quiet core, a few minutes for each of SmolLM2.
"""

import argparse
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from page import RUNS, insert, kept, list_other_golds, machine_line, range_cell, read_small_result, write_jsonl
from real_model import list_questions
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit import tasks
from qredit.pocket.models import get_model_path
from qredit.probe.value import load_examples_to_value, value_examples
from qredit.runs.experiment import load_or_compute
from qredit.runs.options import TrainOptions
from qredit.runs.sft import finetune
from qredit.runs.sft_options import SftOptions
from qredit.runs.smollm2 import SMOLLM2
from qredit.stats.ranking import area_under_curve
from qredit.tasks.base import Split

FOLDER, PAGE = RUNS / "for-value", Path("docs/results.md")
TEXT = Path(__file__).with_name("for_value.md.in")
SHARES = (0.1, 0.3)
STEPS, RATE = 40, 3e-4


@dataclass(frozen=True)
class Setting:
    """What is valued.

    Attributes:
        name: in the table.
        model: that reads the examples.
        train, held: how many examples.
        seeds: which questions, and which of their golds are wrong.
        tuned: fine-tune on the same golds first.
    """

    name: str
    model: str
    train: int
    held: int
    seeds: tuple[int, ...]
    tuned: bool = False


POCKET = Setting("pocket-hotpot", "pocket", 256, 64, (0, 1, 2, 3, 4))
TUNED = replace(POCKET, name="pocket-hotpot, tuned", tuned=True)
REAL = Setting("SmolLM2, one hop", SMOLLM2, 128, 32, (0, 1, 2))
SETTINGS = (POCKET, TUNED, REAL)


def list_pairs(setting: Setting, split: Split) -> list[tuple[str, str, str]]:
    """Id, question and right answer."""
    if setting.model == SMOLLM2:
        return list(list_questions("one-hop", split))
    return [(str(one.id), str(one.prompt), one.gold) for one in tasks.get("pocket-hotpot").load(None, split, "warm")]


def write_data(setting: Setting, share: float, seed: int) -> Path:
    """Training questions with an exact number of wrong golds, and held-out ones with right golds, as files."""
    rng = random.Random(seed)
    asked = rng.sample(list_pairs(setting, "train"), setting.train)
    wrong = set(rng.sample(range(setting.train), round(share * setting.train)))
    rows = []
    for number, (name, prompt, right) in enumerate(asked):
        gold = rng.choice(sorted(list_other_golds(prompt, right))) if number in wrong else right
        rows.append({"id": name, "prompt": prompt, "answer": gold, "right": right})
    held = rng.sample(list_pairs(setting, "test"), setting.held)
    folder = FOLDER / "data" / f"{'real' if setting.model == SMOLLM2 else 'pocket'}-{share:g}-{seed}"
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "test.jsonl", [{"id": name, "prompt": prompt, "answer": gold} for name, prompt, gold in held])
    return folder


def run(setting: Setting, share: float, seed: int, budget: RunBudget) -> dict[str, Any] | None:
    """The area under the curve of one data set; None where it is not there and none is to be begun.

    Args:
        setting: what is valued.
        share: of wrong golds.
        seed: of the data set.
        budget: whether a missing run is made.
    """
    folder = FOLDER / f"{setting.name.replace(', ', '-').replace(' ', '-')}-{share:g}-{seed}"
    if budget.is_spent:
        return read_small_result(kept(folder))

    def make() -> dict[str, Any]:
        model = SMOLLM2 if setting.model == SMOLLM2 else str(get_model_path("hotpot"))
        options = TrainOptions(task="jsonl", data=str(write_data(setting, share, seed)), model=model, cpu=True)
        if setting.tuned:
            shown = replace(options, steps=STEPS, lr=RATE, seed=seed, save_every=0)
            options = replace(
                options, model=str(finetune(SftOptions(shown), folder / "sft", Console(quiet=True)).final)
            )
        setup = load_examples_to_value(options, None, setting.held, "test")
        values = value_examples(setup, rows_per_batch=32)
        right = [one.columns["right"] == one.gold for one in setup.examples]
        return {"auc": area_under_curve(values, right), "wrong": right.count(False), "examples": len(right)}

    facts = {
        "setting": {**vars(setting), "seeds": seed, "model": setting.name},
        "share": share,
        "steps": STEPS,
        "lr": RATE,
    }
    return load_or_compute(folder, facts, make, kept(folder))


def run_all(budget: RunBudget, console: Console) -> dict[tuple[Setting, float, int], dict[str, Any]]:
    """What is there, one seed of all before the next."""
    jobs = [(one, share, seed) for seed in POCKET.seeds for one in SETTINGS if seed in one.seeds for share in SHARES]
    return run_jobs(
        jobs,
        lambda job: run(*job, budget),
        lambda job, result: f"{job[0].name}, {job[1]:.0%} wrong, seed {job[2]}: {result['auc']:.3f}",
        console,
    )


def write_rows(found: Mapping[tuple[Setting, float, int], Mapping[str, Any]]) -> Iterator[str]:
    """One line for each setting that has a run."""
    for setting in SETTINGS:
        areas = [[found[job]["auc"] for job in found if job[:2] == (setting, share)] for share in SHARES]
        if any(areas):
            counts = "/".join(dict.fromkeys(str(len(own)) for own in areas))
            yield f"| {setting.name} | {counts} | {' | '.join(range_cell(own) if own else '' for own in areas)} |"


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_all(budget, Console(highlight=False))
    if found:
        sizes = {
            "pocket": POCKET.train,
            "held": POCKET.held,
            "real": REAL.train,
            "real_held": REAL.held,
            "steps": STEPS,
        }
        text = Template(TEXT.read_text()).substitute(sizes, machine=machine_line(), rows="\n".join(write_rows(found)))
        insert(PAGE, "for value", text)


if __name__ == "__main__":
    main()
