"""The pages of docs/objectives: what each method says of itself, what its credit costs, what it did. `make pages`.

Costs are measured here and kept in runs/objectives; effects come from the comparisons of `make results`. About five
minutes on two cores.
"""

import argparse
import inspect
import json
import shutil
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from qredit.catalog import about
from qredit.cli.objectives_command import CERTAINTY, cost_in_words
from qredit.errors import QreditError
from qredit.lab.batches import batch_for
from qredit.objective import Objective, sum_terms
from qredit.objectives import REGISTRY
from qredit.quiet import quiet_libraries
from qredit.run.options import TrainOptions
from qredit.run.train import train
from qredit.text import example

FOLDER, PAGES, COMPARED = Path("runs/objectives"), Path("docs/objectives"), Path("runs/results/compare")
PAGE, INDEX = (Path(__file__).with_name(name) for name in ("objective_page.md.in", "objective_index.md.in"))
WRITTEN = ("garl", "paft", "grpo")  # by hand; their numbers are in the index
GROUPS, WIDTHS = (16,) * 8, (32, 1, 8)  # the sizes of a pocket step
STEPS, REPEATS = 4, 7


@dataclass(frozen=True)
class Cost:
    """What a method costs.

    Attributes:
        credit: milliseconds of coefficients and loss, given what the forward pass tells, for 128 rollouts.
        step: seconds of a step of training, the median after the first; None where a field must be supplied.
        grpo: the same of GRPO, run right before.
    """

    credit: float
    step: float | None
    grpo: float | None


def credit_cost(objective: Objective) -> float:
    """Milliseconds of one evaluation with loss and backward to log p, the median."""
    batch = batch_for(objective, 0, GROUPS, WIDTHS)
    logp = torch.where(batch.mask, -1.0, 0.0).requires_grad_()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        credited = objective.evaluate(batch)
        terms = objective.numerators(logp, batch, credited)
        torch.autograd.grad(sum_terms(terms, objective.denominators(batch, credited)), logp, allow_unused=True)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def step_cost(objective: str, folder: Path) -> float:
    """Seconds of a training step on warm pocket-hotpot, 8 questions × 16 rollouts, the median after the first."""
    options = TrainOptions(style="warm", objective=objective, steps=STEPS, lr=1e-9, save_every=0, cpu=True)
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
    train(options, folder, Console(quiet=True))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.median([line["step_time"] for line in lines if "step_time" in line][1:])


def cost(name: str) -> Cost:
    """The cost of a registered method, from its file if it is kept there."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        objective = example(name)
        step = grpo = None
        try:
            grpo = step_cost("grpo()", FOLDER / "runs" / f"{name}-grpo")
            step = step_cost(str(objective), FOLDER / "runs" / name)
        except QreditError as error:
            if "which nothing here fills" not in str(error):
                raise
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"credit": credit_cost(objective.at(0.5)), "step": step, "grpo": grpo}))
    return Cost(**json.loads(path.read_text()))


def measured(found: Cost) -> str:
    """The cost as the page says it."""
    share = "" if found.grpo is None else f", {100 * found.credit / 1000 / found.grpo:.1f} % of a GRPO step"
    told = f"Coefficients and loss of 128 rollouts of up to 41 tokens take {found.credit:.1f} ms{share}."
    if found.step is None or found.grpo is None:
        return told + " A training step was not measured: a field must be supplied."
    return told + f" A training step takes {found.step / found.grpo:.2f} times one of `grpo()` ({found.step:.2f} s)."


def effects() -> Mapping[str, Mapping[str, str]]:
    """What the comparisons of `make results` found, by method and comparison."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(COMPARED.glob("*.json")):
        for row in json.loads(path.read_text())["rows"]:
            found.setdefault(row["objective"].split("(")[0], {})[path.stem] = row["told"]
    return found


def page(name: str, found: Cost, effect: Mapping[str, str]) -> str:
    """One method's page."""
    told, objective = about(name, REGISTRY[name]), example(name)
    said = "\n".join(f"- {kind}: {text}" for kind, text in effect.items())
    return Template(PAGE.read_text()).substitute(
        name=name,
        signature=f"{name}{told['signature']}",
        source=told["source"],
        certainty=CERTAINTY[told["certainty"]] + (", a formula over supplied fields" if told["formula_only"] else ""),
        family=told["family"],
        doc=inspect.getdoc(REGISTRY[name]),
        example=str(objective),
        expansion="\n".join(f"    {line}" for line in objective.expansion.splitlines()),
        needs=", ".join(f"`{need}`" for need in told["needs"]),
        cost="".join(f"{words[0].upper()}{words[1:]}. " for words in cost_in_words(objective)) + measured(found),
        effect=said or "Not compared in a trained run.",
    )


def index(costs: Mapping[str, Cost], measured: Mapping[str, Mapping[str, str]]) -> str:
    """The table of all methods."""
    lines = []
    for name in sorted(REGISTRY, key=lambda name: (REGISTRY[name].family, name)):
        told, found = about(name, REGISTRY[name]), costs[name]
        step = "" if found.step is None or found.grpo is None else f"{found.step / found.grpo:.2f}"
        cells = [f"[{name}]({name}.md)", told["family"], told["source"].removeprefix("arXiv "), told["certainty"]]
        summary = told["summary"].replace("|", "\\|")
        lines.append(f"| {' | '.join([*cells, f'{found.credit:.1f}', step, summary])} |")
    return Template(INDEX.read_text()).substitute(count=len(REGISTRY), rows="\n".join(lines))


def main() -> None:
    """Measure what is missing and write every page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    quiet_libraries()
    torch.set_num_threads(2)
    costs: dict[str, Cost] = {name: cost(name) for name in track(sorted(REGISTRY), "costs")}
    measured: Any = effects()
    for name in sorted(set(REGISTRY) - set(WRITTEN)):
        (PAGES / f"{name}.md").write_text(page(name, costs[name], measured.get(name, {})))
    (PAGES / "README.md").write_text(index(costs, measured))


if __name__ == "__main__":
    main()
