"""The pages of docs/objectives: what each method says of itself, what its credit costs, what it did. `make pages`.

Costs are measured here and kept in docs/objectives/costs.json; effects come from the comparisons of `make results`, and
stay as they are on a page where these are not at hand. About five minutes on two cores. `make pages-text` measures
nothing: texts anew, costs as kept.
"""

import argparse
import inspect
import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template

import torch
from agents import tell_agent_effects
from method_effects import tell_effects
from methods_page import read_effects
from real_model import tell_real_effects
from rich.console import Console
from rich.progress import track
from small_judge import tell_judged_effects
from turn_rules import tell_turn_effects

from qredit.catalog import about
from qredit.cli.objectives_command import CERTAINTY, SECOND_HAND, describe_provenance
from qredit.core.costs import list_costs
from qredit.core.objective import Objective, sum_terms
from qredit.fields.parsing import list_makers
from qredit.objectives import REGISTRY
from qredit.objectives.parsing import example
from qredit.rollouts.field_functions import FIELD_FUNCTIONS
from qredit.runs.library_logging import silence_libraries
from qredit.runs.options import TrainOptions
from qredit.runs.train import train
from qredit.testing.batches import make_batch_for
from qredit.utils.errors import QreditError

FOLDER, PAGES, COMPARED = Path("runs/objectives"), Path("docs/objectives"), Path("runs/results/compare")
COSTS = PAGES / "costs.json"
PAGE, INDEX = (Path(__file__).with_name(name) for name in ("objective_page.md.in", "objective_index.md.in"))
WRITTEN = ("garl", "paft", "grpo")  # by hand, but for what was measured of them; their costs are in the index
GROUPS, WIDTHS = (16,) * 8, (32, 1, 8)  # the sizes of a pocket step
STEPS, REPEATS = 4, 7
RESULTS = Path("docs/results.md")
NOWHERE = "Not compared in a trained run."
_FILLED = ("logp@reference", "logp@hint", "kl@reference")
ELSEWHERE = "Not among the credit rules side by side. Other tables of [results](../results.md) have rows of it."


@dataclass(frozen=True)
class Cost:
    """What a method costs.

    Attributes:
        credit: milliseconds of coefficients and loss, given what the forward pass tells, for 128 rollouts.
        step: seconds of a step of training, the median after the first; None where a field must be supplied.
        times: the same over that of GRPO, run right before.
        share: credit in per cent of GRPO's step.
    """

    credit: float
    step: float | None
    times: float | None
    share: float | None


def credit_cost(objective: Objective) -> float:
    """Milliseconds of one evaluation with loss and backward to log p, the median."""
    batch = make_batch_for(objective, 0, GROUPS, WIDTHS)
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
    return float(statistics.median([line["step_time"] for line in lines if "step_time" in line][1:]))


def kept_costs() -> dict[str, Cost]:
    """The costs measured before."""
    return {name: Cost(**found) for name, found in json.loads(COSTS.read_text()).items()}


def keep_costs(costs: Mapping[str, Cost]) -> None:
    """Write them, a line each."""
    lines = [f"{json.dumps(name)}: {json.dumps(asdict(costs[name]))}" for name in sorted(costs)]
    COSTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def measure(name: str) -> Cost:
    """The cost of a registered method."""
    objective = example(name)
    step = grpo = None
    try:
        grpo = step_cost("grpo()", FOLDER / f"{name}-grpo")
        step = step_cost(str(objective), FOLDER / name)
    except QreditError as error:
        if "which nothing here fills" not in str(error):
            raise
    credit = credit_cost(objective.at(0.5))
    if step is None or grpo is None:
        return Cost(round(credit, 1), None, None, None)
    return Cost(round(credit, 1), round(step, 2), round(step / grpo, 2), round(credit / 10 / grpo, 1))


def measured(found: Cost | None) -> str:
    """The cost as the page says it."""
    if found is None:
        return "Coefficients, loss and a training step were not measured."
    share = "" if found.share is None else f", {found.share} % of a GRPO step"
    told = f"Coefficients and loss of 128 rollouts of up to 41 tokens take {found.credit:.1f} ms{share}."
    step = "A training step was not measured: what it takes depends on who makes its field."
    if found.step is not None:
        step = f"A training step takes {found.times:.2f} times one of `grpo()` ({found.step:.2f} s)."
    return f"{told} {step} Measured by `make pages` on two cores, to within a tenth."


def effects() -> Mapping[str, Mapping[str, str]]:
    """What was measured, by method and comparison."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(COMPARED.glob("*.json")):
        for row in json.loads(path.read_text())["rows"]:
            if "|" not in row["objective"]:  # a method with more behind it shows that, not the method
                found.setdefault(row["objective"].split("(")[0], {})[path.stem] = row["told"]
    tables = {
        "real model": tell_real_effects(),
        "sums": tell_effects(),
        "agent": tell_agent_effects(),
        "turns": tell_turn_effects(),
        "judge": tell_judged_effects(),
    }
    for kind, told in tables.items():
        for name, text in told.items():
            found.setdefault(name, {})[kind] = text
    return found


def has_results(name: str) -> bool:
    """Whether a table of the results has a row of it."""
    return f"\n| `{name}(" in RESULTS.read_text()


def page(name: str, found: Cost | None, effect: Mapping[str, str]) -> str:
    """One method's page."""
    told, objective = about(name, REGISTRY[name]), example(name)
    effects = (read_effects(name) or {}) | dict(effect)
    said = list_effects(effects)
    warned = describe_provenance(told)
    return Template(PAGE.read_text()).substitute(
        name=name,
        provenance=f"> **{warned}**" if told["known"] == SECOND_HAND else warned,
        signature=f"{name}{told['signature']}",
        source=told["source"],
        certainty=CERTAINTY[told["certainty"]],
        family=told["family"],
        doc=inspect.getdoc(REGISTRY[name]),
        example=str(objective),
        expansion="\n".join(f"    {line}" for line in objective.expansion.splitlines()),
        needs=", ".join(f"`{need}`" for need in told["needs"]),
        makers=list_makers_of(told["needs"]),
        cost="".join(f"{words[0].upper()}{words[1:]}. " for words in list_costs(objective)) + measured(found),
        effect=said or (ELSEWHERE if has_results(name) else NOWHERE),
    )


def list_effects(effects: Mapping[str, str]) -> str:
    """A line for each comparison."""
    return "\n".join(f"- {kind}: {text}" for kind, text in effects.items())


def write_effects(path: Path, effects: Mapping[str, str]) -> None:
    """Put what was measured into the last section of a page that is written by hand.

    Args:
        path: of the page.
        effects: by comparison; a page without any keeps what its hand says there.
    """
    before, heading, _ = path.read_text().partition("## Effect\n\n")
    if effects:
        path.write_text(f"{before}{heading}{list_effects(effects)}\n")


def list_makers_of(needs: Sequence[str]) -> str:
    """Which makers fill the fields that nothing else does, a sentence for each."""
    filled: dict[tuple[str, ...], list[str]] = {}
    for need in needs:
        if need not in _FILLED and (makers := list_makers(need)):
            filled.setdefault(tuple(makers), []).append(need)
    told = [
        f" {', '.join(map(_quote, fields))} {_say_filled(fields)} by {' or '.join(map(_quote, makers))}."
        for makers, fields in filled.items()
    ]
    return f"{''.join(told)} See [fields](../fields.md)." if told else ""


def _quote(name: str) -> str:
    return f"`{name}`"


def _say_filled(fields: Sequence[str]) -> str:
    if all(field in FIELD_FUNCTIONS for field in fields):
        return "can also be filled"
    return "is filled" if len(fields) == 1 else "are filled"


def index(costs: Mapping[str, Cost]) -> str:
    """The table of all methods."""
    lines = []
    for name in sorted(REGISTRY, key=lambda name: (REGISTRY[name].family, name)):
        told, found = about(name, REGISTRY[name]), costs.get(name)
        known = f"**{told['known']}**" if told["known"] == SECOND_HAND else told["known"]
        times = ["", ""] if found is None else [f"{found.credit:.1f}", f"{found.times:.2f}" if found.times else ""]
        cells = [f"[{name}]({name}.md)", known, told["family"], told["source"].removeprefix("arXiv "), *times]
        summary = told["summary"].replace("|", "\\|")
        lines.append(f"| {' | '.join([*cells, summary])} |")
    return Template(INDEX.read_text()).substitute(count=len(REGISTRY), rows="\n".join(lines))


def main() -> None:
    """Measure what is missing and write every page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", action="store_true", help="measure nothing; what has no cost says so")
    only_texts = parser.parse_args().texts
    silence_libraries()
    torch.set_num_threads(2)
    costs = kept_costs()
    for name in track([] if only_texts else sorted(set(REGISTRY) - set(costs)), "costs"):
        costs[name] = measure(name)
        keep_costs(costs)
    compared = effects()
    for name in sorted(set(REGISTRY) - set(WRITTEN)):
        (PAGES / f"{name}.md").write_text(page(name, costs.get(name), compared.get(name, {})))
    for name in WRITTEN:
        write_effects(PAGES / f"{name}.md", compared.get(name, {}))
    (PAGES / "README.md").write_text(index(costs))


if __name__ == "__main__":
    main()
