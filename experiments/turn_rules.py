"""Rules over turns side by side on a search agent that succeeds now and then: part of `make results-agents`.

The plan, written before the first run: the pocket search model behind warm prompts, which is right in about half of its
episodes. The search pays a turn that first reads a document with the answer (`paid_search.py`), so that rules over
rewards of turns have some; the outcome is the answer alone. `STEPS` steps of 8 questions × 8 rollouts at one learning
rate, which none was tuned at. Seeds 0 to 2 for `LEADING`, seed 0 for their relatives: what lies within the range of the
leading ones' seeds says nothing. All seeds 0 come first. After these `aem` was ahead of all, and got the other seeds,
too. `siop` and agentic AEPO's branches came later, and `f_grpo`, which was made for a turn that ranks, last of all:
here its searches propose, and the turn that it compares apart is the answer. Success is held-out p@1.

Runs are kept in runs/results/turn-rules, their small results in experiments/kept/turn-rules. `--minutes` begins no run
after so many, `--write` writes the table of what is there and trains nothing.
"""

import argparse
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from agents import COLD, COUNTED, HELD, LAST, run_agent
from page import (
    RUNS,
    find_spread,
    insert,
    kept,
    machine_line,
    percent_cell,
    range_cell,
    read_small_result,
    read_small_results,
    tell_gap,
    write_jsonl,
)
from rich.console import Console
from run_budget import parse_budget, run_jobs

from qredit.runs.load import find_weights, load_examples
from qredit.runs.options import TrainOptions
from qredit.samplers.answers import as_row
from qredit.tasks.base import Split

FOLDER, PAGE = RUNS / "turn-rules", Path("docs/results.md")
TEXT = Path(__file__).with_name("turn_rules.md.in")
SEEDS, STEPS = (0, 1, 2), 30
ASKED = replace(COLD, style="warm")
QUESTIONS: Mapping[Split, int] = {"train": 512, "test": HELD.questions}
GRPO = "grpo()"
SCORER = FOLDER / "scorer"  # the model that the runs begin with, at a path that is the same on every machine
CRITIC = ("value=critic(lr=0.01)",)


@dataclass(frozen=True)
class Arm:
    """One rule.

    Attributes:
        objective: in its text form.
        branching: the rule by which its episodes branch.
        field: makers of what it reads.
        leading: it has three seeds.
    """

    objective: str
    branching: str | None = None
    field: tuple[str, ...] = ()
    leading: bool = False

    @property
    def name(self) -> str:
        """As a folder is called."""
        text = self.objective + (self.branching or "")
        return "".join(c for c in text if c.isalnum() or c in ".-_")

    def describe(self) -> str:
        """What it runs with, in code marks."""
        return ", ".join(f"`{part}`" for part in filter(None, (self.branching, *self.field)))

    def options(self, seed: int) -> TrainOptions:
        """One run."""
        return replace(
            ASKED,
            task="jsonl",
            data=str(prepare()),
            model=find_weights(ASKED),
            env="paid_search:PaidSearch",
            reward="exact_match",
            steps=STEPS,
            objective=self.objective,
            branching=self.branching,
            field=self.field,
            seed=seed,
        )


@cache
def prepare() -> Path:
    """The scorer of `siop`, and the folder of the questions.

    These are the questions of the search agent, with their documents, as files: the search is not the one of the task.
    """
    shutil.copytree(find_weights(ASKED), SCORER, dirs_exist_ok=True)  # whole again after a copy that was cut off
    for split, count in QUESTIONS.items():
        asked = load_examples(ASKED, split, count)
        write_jsonl(FOLDER / "data" / f"{split}.jsonl", [as_row(one) | {"id": one.id} for one in asked])
    return FOLDER / "data"


ARMS = (
    Arm(GRPO, leading=True),
    Arm("gigpo()", leading=True),
    Arm("igpo()", leading=True),
    Arm("tree_grpo()", "trees(roots=2, nodes=3)", leading=True),
    Arm("garl(q=0.75)", leading=True),
    Arm("turn_ppo()", field=CRITIC),
    Arm("mt_grpo()"),
    Arm("a2tgpo()"),
    Arm("matchtir()"),
    Arm("mica()"),
    Arm("gtpo(pool='turn')"),
    Arm("empg(bonus=0.05)"),
    Arm("aem()", leading=True),
    Arm("epo(low=0.8, high=1.2, height=0.1, decay=1.0)"),
    Arm("agentic_aepo()"),
    Arm("arpo()", "unsure_turns()"),
    Arm("slate()", "candidates(k=4)"),
    Arm("vpr(pool='sibling')", "candidates(k=4, temperature=0)"),
    Arm("vpr()"),
    Arm("bi_level_gae()", field=CRITIC),
    Arm("poad()", field=CRITIC),
    Arm("r3_rag()", field=CRITIC),
    Arm("istar('prm')", field=("logp@prm=implicit_prm(lr=0.0001)",)),
    Arm("logprob()"),
    Arm("gigpo(history=1)"),
    Arm("siop()", field=(f"support@before=answer_support('{SCORER}', alike=same_answers('exact_match'))",)),
    Arm("agentic_aepo()", "balanced_turns(base=0.5, weight=0.2, threshold=0.5, slope=0.5)"),
    Arm("f_grpo()"),
)


UNKNOWN_SPREAD = 0.1
"""What seeds are taken to differ by while each arm has one: 64 questions do not tell ten points."""


def find_folder(arm: Arm, seed: int) -> Path:
    """Where a run is kept."""
    return FOLDER / f"{arm.name}-{seed}"


def run_arm(arm: Arm, seed: int, train_anew: bool) -> dict[str, Any] | None:
    """One run and its success on held-out questions; None where it is not there and none is to be made.

    Args:
        arm: the rule.
        seed: of the run.
        train_anew: whether a missing run is made.
    """
    folder = find_folder(arm, seed)
    if not train_anew:
        return read_small_result(kept(folder))
    return run_agent(arm.options(seed), folder)


def write_table(found: Mapping[tuple[Arm, int], Mapping[str, Any]]) -> str:
    """One line for each rule that has a run, those with the most success first: mean and range over its seeds."""
    rows = []
    for arm in ARMS:
        own = [result for (one, _), result in found.items() if one == arm]
        if own:
            success = [one["p@1"]["value"] for one in own]
            cells = [
                percent_cell(success),
                *(range_cell([statistics.mean(o[n][-LAST:]) for o in own]) for n in COUNTED),
            ]
            rows.append(
                (
                    statistics.mean(success),
                    f"| `{arm.objective}` | {arm.describe()} | {len(own)} | {' | '.join(cells)} |",
                )
            )
    return "\n".join(line for _, line in sorted(rows, key=lambda row: -row[0]))


def tell_turn_effects() -> dict[str, str]:
    """What the page of each rule says of its run here, by name; read from what is kept."""
    found = read_small_results({(arm, seed): kept(find_folder(arm, seed)) for arm, seed in list_jobs()})
    leading: dict[str, list[float]] = {}
    for (arm, _), result in found.items():
        if arm.leading:
            leading.setdefault(arm.name, []).append(result["p@1"]["value"])
    spread = find_spread(leading.values(), alone=UNKNOWN_SPREAD)
    grpo = {seed: result for (arm, seed), result in found.items() if arm.objective == GRPO}
    told: dict[str, str] = {}
    for arm in (one for one in ARMS if one.objective != GRPO):
        own = {seed: result for (one, seed), result in found.items() if one == arm and seed in grpo}
        if own:
            success = [result["p@1"]["value"] for result in own.values()]
            gap = statistics.mean(success) - statistics.mean(grpo[seed]["p@1"]["value"] for seed in own)
            doubt = "" if abs(gap) > spread else "seeds differ by as much"
            made = f" with {arm.describe()}" if arm.describe() else ""
            measured = f"p@1 {percent_cell(success)} %{made}, {100 * gap:+.1f}"
            link = "[rules over turns](../results.md#rules-over-turns-side-by-side)"
            told.setdefault(arm.objective.partition("(")[0], tell_gap(measured, len(own), link, doubt))
    return told


def list_jobs() -> list[tuple[Arm, int]]:
    """In the order in which they are run: seed 0 of all first."""
    return [(arm, seed) for seed in SEEDS for arm in ARMS if seed == 0 or arm.leading]


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_jobs(
        list_jobs(),
        lambda job: run_arm(*job, not budget.is_spent),
        lambda job, result: f"{job[0].objective} seed {job[1]}: p@1 {result['p@1']['value']:.3f}",
        Console(highlight=False),
    )
    if found:
        whole = Template(TEXT.read_text()).safe_substitute(rows=write_table(found), machine=machine_line())
        insert(PAGE, "turn rules", whole)


if __name__ == "__main__":
    main()
