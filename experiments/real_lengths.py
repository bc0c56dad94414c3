"""Part C of `make results-real`: the same questions with answers of a few, some twenty and some sixty tokens.

What is run was fixed before (`real_plan.py`). Where does the likelihood of the whole answer underflow, and what do
methods do there that do not multiply it up? Two hours of one core.
"""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import real_plan as plan
from page import insert, write_jsonl
from real_model import (
    FOLDER,
    HELD,
    PAGE,
    STORE,
    choose_rates,
    choose_wording,
    make_options,
    read_result,
    remove_weights,
    short,
)
from real_plan import Arm
from rich.console import Console
from run_budget import RunBudget, parse_workers

from qredit import tasks
from qredit.runs.experiment import Variant, collect_facts, load_or_compute
from qredit.runs.options import TrainOptions
from qredit.runs.parallel import run_parallel
from qredit.runs.train import train
from qredit.tasks.base import Example

TEXT = Path(__file__).with_name("real_lengths.md.in")
WATCHED = {  # name in the table: metric of a step
    "log10_p": "p_hat/log10_q50",
    "nll": "answer/nll_per_token",
    "underflow": "coefficient/underflow",
    "groups": "groups/underflow",
    "grad_norm": "grad_norm",
    "success": "reward",
}


def lengthen(example: Example, kind: str) -> str:
    """The answer that is asked for: city and country, the facts that lead to them, or all facts and those again."""
    chain = str(example.rationale)
    person, city = chain.split()[0], chain.split()[3].rstrip(".")
    facts = sorted(line for line in str(example.prompt).split("\n") if line.endswith("."))
    return {
        "name": f"{city}, {example.answer}",
        "chain": f"{chain} So {person} lives in {example.answer}.",
        "facts": f"{' '.join(facts)} {chain}",
    }[kind]


def write_questions(kind: str) -> Path:
    """The bare two-hop questions with such answers."""
    folder = FOLDER / "data" / f"length-{kind}"
    for split in ("train", "test"):
        examples = tasks.get("pocket-hotpot").load(None, split, "cold")
        rows = ({"id": e.id, "prompt": e.prompt, "answer": lengthen(e, kind)} for e in examples)
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def make_length_options(arm: Arm, kind: str, rate: float) -> TrainOptions:
    """One run: the thinking budget is the same for all lengths."""
    own = make_options(plan.TASKS[0], arm, plan.LENGTH_SEED, rate, plan.LENGTH_STEPS[kind])
    budget = plan.LENGTHS[kind]
    return replace(
        own,
        data=str(write_questions(kind)),
        max_completion_length=plan.LENGTH_THOUGHT + budget,
        answer_budget=budget,
    )


def run_length(arm: Arm, kind: str, rate: float, budget: RunBudget) -> None:
    """One run of one length of answers; what each of its steps showed is kept.

    Args:
        arm: the method.
        kind: of `plan.LENGTHS`.
        rate: learning rate.
        budget: whether it is begun.
    """
    if budget.is_spent:
        return
    name, options = f"length-{kind}-{short(arm.name)}", make_length_options(arm, kind, rate)
    folder = FOLDER / name

    def make() -> dict[str, Any]:
        train(options, folder / "run", Console(quiet=True), resume=(folder / "run").exists())
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "reward" in line]
        remove_weights(folder)
        return {own: [step.get(metric) for step in steps] for own, metric in WATCHED.items()}

    facts = collect_facts(Variant(options), HELD) | {"what": "lengths"}
    load_or_compute(folder, facts, make, STORE / f"{name}.json", resume=True)


def write_rows() -> Iterator[str]:
    """One line for each length and arm that was run."""
    for kind in plan.LENGTHS:
        for arm in plan.LENGTH_ARMS:
            found = read_result(f"length-{kind}-{short(arm.name)}")
            if found is not None:
                yield f"| {kind} | {arm.name} | {' | '.join(cells(found))} |"


def cells(found: Mapping[str, list[float | None]]) -> Iterator[str]:
    """First and last step, side by side."""
    for name, form in (("nll", ".2f"), ("log10_p", ".0f")):
        first, last = found[name][0], found[name][-1]
        yield f"{number(first, form)} → {number(last, form)}"
    under = found["underflow"][0]  # of coefficients; an arm without any has none
    yield "–" if under is None else f"{100 * under:.0f} %"
    yield number(found["grad_norm"][0], ".2g")
    yield f"{100 * statistics.mean(value or 0.0 for value in found['success'][-2:]):.0f} %"


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def main() -> None:
    """Run what is missing and write the section."""
    workers, budget = parse_workers(__doc__)
    console = Console(highlight=False)
    if not budget.is_spent:
        choose_wording(plan.TASKS[0])  # asked here once: the runs read it
        rates = choose_rates(console, workers)
        wanted = [(arm, kind) for kind in plan.LENGTHS for arm in plan.LENGTH_ARMS]
        jobs = [partial(run_length, arm, kind, rates[arm.rate_of], budget) for arm, kind in wanted]
        run_parallel("lengths", jobs, console, workers)
    insert(PAGE, "real lengths", Template(TEXT.read_text()).substitute(rows="\n".join(write_rows())))


if __name__ == "__main__":
    main()
