"""Curricula on star graphs and on a mixed pocket set: part of `make results-data`.

The plan, written before the first run. Two sets:

- stars: graphs of 3 arms of 3 nodes, which are asked for afterwards, and easier ones of 2 arms of 2 and of 3 nodes. The
  model is that of pocket-finqa, shown easier graphs alone for `SHOWN` steps, so that it is right on the easiest now and
  then and on the hard ones hardly ever. In arXiv 2510.03971 rewards alone stay at zero on star graphs, and easier ones
  mixed in solve them. So GRPO and GARL run on the hard graphs alone and with half of the prompts easier; GRPO also on
  all graphs alike, and by the other rules.
- pocket: one half pocket-hotpot behind warm prompts, which its model answers now and then, one half behind cold ones,
  which it does not, and which are asked for afterwards, with questions that were not trained on.

`STEPS` steps of 8 questions × 16 rollouts at one learning rate, which none was tuned at. Seeds 0 come first. Success is
held-out p@1. What is claimed of a rule is its gap to the same objective without one; an interval that holds 0 says
nothing.

Runs are kept in runs/results/curricula, their small results in experiments/kept/curricula. `--minutes` begins no run
after so many, `--write` writes the tables of what is there and trains nothing.
"""

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
from page import (
    RUNS,
    gap_cell,
    insert,
    kept,
    machine_line,
    paired_difference,
    percent_cell,
    read_small_result,
    write_jsonl,
)
from real_model import ask_questions
from rich.console import Console
from run_budget import parse_budget, run_jobs

from qredit import pocket, tasks
from qredit.runs.experiment import EvalSpec, hash_initial_weights, load_or_compute, read_curves
from qredit.runs.options import TrainOptions
from qredit.runs.sft import finetune
from qredit.runs.sft_options import SftOptions, ShownOptions
from qredit.runs.train import train

FOLDER, PAGE = RUNS / "curricula", Path("docs/results.md")
TEXT = Path(__file__).with_name("curricula.md.in")
SEEDS, SHOWN, QUESTIONS = (0, 1, 2), 40, 512
STEPS = {"stars": 150, "pocket": 75}  # of pocket half of the plan's, before any was run, for what they cost
STAR, EASIER = f"degree=3, length=3, nodes=10, size={QUESTIONS}", "easier=[(2, 2), (2, 3)]"
EASIER_ALONE = f"path-star(degree=2, length=3, nodes=10, size={QUESTIONS}, easier=[(2, 2)])"
HELD = EvalSpec(questions=128)
SHARED = TrainOptions(lr=1e-3, answer_budget=8, save_every=0, cpu=True)
Found = Mapping[tuple["Arm", int], Mapping[str, Any]]


@dataclass(frozen=True)
class Arm:
    """One run of a set.

    Attributes:
        data: the set, stars or pocket.
        objective: in its text form; None is the model before any of these runs.
        curriculum: in its text form; None asks all prompts alike.
        alone: trained on what is asked for afterwards alone.
    """

    data: str
    objective: str | None
    curriculum: str | None = None
    alone: bool = False

    @property
    def name(self) -> str:
        """As a folder is called."""
        if self.objective is None:
            return f"{self.data}-untrained"
        rule = "alone" if self.alone else "all" if self.curriculum is None else plain(self.curriculum)
        return f"{self.data}-{plain(self.objective)}-{rule}"

    @property
    def told(self) -> str:
        """What is asked, in words."""
        return "hard alone" if self.alone else "all alike" if self.curriculum is None else f"`{self.curriculum}`"


BAND, MIXED = "success_band(0.1, 0.9, unknown=0.5)", "mix_easier(0.5)"
ARMS = (
    *(Arm(data, None) for data in ("stars", "pocket")),
    *(Arm("stars", objective, alone=True) for objective in ("grpo()", "garl(q=0.75)")),
    *(Arm("stars", objective, MIXED) for objective in ("grpo()", "garl(q=0.75)")),
    Arm("stars", "grpo()"),
    Arm("stars", "grpo()", "phases('difficulty', (2, 4), carried=0.25, least=0.1)"),
    Arm("stars", "grpo()", BAND),
    *(Arm("pocket", objective, alone=True) for objective in ("grpo()", "garl(q=0.75)")),
    *(Arm("pocket", objective, MIXED) for objective in ("grpo()", "garl(q=0.75)")),
    Arm("pocket", "grpo()"),
    Arm("pocket", "grpo()", "phases('difficulty', (0,), carried=0.25, least=0.1)"),
    Arm("pocket", "grpo()", "tiers(('warm', 'cold'))"),
    Arm("pocket", "grpo()", BAND),
)


@cache
def write_data(alone: bool) -> Path:
    """The mixed set as a folder: cold prompts, and unless they are alone others behind warm ones.

    Args:
        alone: leave the warm prompts out.
    """
    task, folder = tasks.get("pocket-hotpot"), FOLDER / "data" / ("cold" if alone else "mixed")
    halves = {"cold": task.load(None, "train", "cold")[:QUESTIONS]}
    if not alone:
        halves["warm"] = task.load(None, "train", "warm")[QUESTIONS : 2 * QUESTIONS]
    rows = [
        {
            "id": f"{tier}-{one.id}",
            "prompt": one.prompt,
            "answer": one.answer,
            "tier": tier,
            "difficulty": int(tier == "cold"),
        }
        for tier, half in halves.items()
        for one in half
    ]
    write_jsonl(folder / "train.jsonl", rows)
    return folder


def choose_options(arm: Arm, seed: int) -> tuple[TrainOptions, TrainOptions]:
    """The options of a run, and those by which its model is asked afterwards.

    Args:
        arm: set, objective and rule.
        seed: of the run.
    """
    shared = replace(
        SHARED,
        objective=arm.objective or "grpo()",
        curriculum=arm.curriculum,
        seed=seed,
        steps=STEPS[arm.data],
    )
    if arm.data == "stars":
        model = str(pocket.get_model_path("finqa"))
        hard = replace(shared, task=f"path-star({STAR})", model=model, max_completion_length=20)
        easier = f"path-star({STAR}, {EASIER})"
        return hard if arm.alone else replace(hard, task=easier), replace(hard, curriculum=None)
    model = str(pocket.get_model_path("hotpot"))
    asked = replace(shared, task="pocket-hotpot", model=model, max_completion_length=40, curriculum=None)
    return replace(shared, task="jsonl", data=str(write_data(arm.alone)), model=model, max_completion_length=40), asked


@cache
def show_easier(model: str) -> str:
    """The model that the runs on graphs begin with: one that was shown easier graphs, with how they are thought about.

    Args:
        model: folder of the one that never saw any.
    """
    final, run = FOLDER / "start" / "final", replace(SHARED, task=EASIER_ALONE, model=model, steps=SHOWN)
    if not final.is_dir():
        shutil.rmtree(FOLDER / "start", ignore_errors=True)
        shown = SftOptions(replace(run, max_completion_length=20), ShownOptions(rationales=True))
        finetune(shown, FOLDER / "start", Console(quiet=True))
    return str(final)


def run_arm(arm: Arm, seed: int, train_anew: bool) -> dict[str, Any] | None:
    """A run and its success on held-out questions; None where it is not there and none is to be made.

    Args:
        arm: set, objective and rule.
        seed: of the run.
        train_anew: whether a missing run is made.
    """
    folder = FOLDER / f"{arm.name}-{seed}"
    if not train_anew:
        return read_small_result(kept(folder))
    options, asked = choose_options(arm, seed)

    def make() -> dict[str, Any]:
        start = show_easier(options.model) if arm.data == "stars" else options.model
        curve, final = [], start
        if arm.objective is not None:
            final = str(train(replace(options, model=start), folder / "run", Console(quiet=True)).final)
            curve = read_curves(folder / "run" / "metrics.jsonl")["curve"]
        said = ask_questions(asked, final, HELD)
        return {"p@1": said["p@1"], "each": {"p@1": said["each"]["p@1"]}, "curve": curve}

    # Of the model its weights say which it is, of the data their folder's name: paths are those of this machine.
    changed = {name: value for name, value in options.changed().items() if name not in ("model", "data")}
    rows = None if options.data is None else [QUESTIONS, Path(options.data).name]
    changed |= {"shown": [SHOWN, EASIER_ALONE]} if arm.data == "stars" else {}
    changed |= {"untrained": True} if arm.objective is None else {}
    facts = {"train": changed, "rows": rows, "weights": hash_initial_weights(options), "held": asdict(HELD)}
    return load_or_compute(folder, facts, make, kept(folder))


def write_table(found: Found, data: str) -> str:
    """One line for each arm of a set that has a run: success, its gap to the same on hard prompts alone, last rewards.

    Args:
        found: results by arm and seed.
        data: the set.
    """
    lines = []
    for arm in (one for one in ARMS if one.data == data):
        seeds = {seed: result for (one, seed), result in found.items() if one == arm}
        if not seeds:
            continue
        success = percent_cell([one["p@1"] for one in seeds.values()])
        if arm.objective is None:
            lines.append(f"| untrained |  | {len(seeds)} | {success} |  |  |")
            continue
        pairs = {seed: (Arm(data, arm.objective, alone=True), seed) for seed in seeds if not arm.alone}
        base = {seed: found[pair] for seed, pair in pairs.items() if pair in found}
        gap = gap_cell(paired_difference([seeds[seed] for seed in base], list(base.values()))) if base else ""
        last = percent_cell([sum(one["curve"][-10:]) / len(one["curve"][-10:]) for one in seeds.values()])
        lines.append(f"| `{arm.objective}` | {arm.told} | {len(seeds)} | {success} | {gap} | {last} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_jobs(
        [(arm, seed) for seed in SEEDS for arm in ARMS if seed == SEEDS[0] or arm.objective is not None],
        lambda job: run_arm(*job, not budget.is_spent),
        lambda job, result: f"{job[0].name} seed {job[1]}: p@1 {result['p@1']:.3f}",
        Console(highlight=False),
    )
    if found:
        text = Template(TEXT.read_text()).substitute(
            stars=write_table(found, "stars"),
            pocket=write_table(found, "pocket"),
            machine=machine_line(),
            steps=" and ".join(map(str, STEPS.values())),
            shown=SHOWN,
        )
        insert(PAGE, "curricula", text)


if __name__ == "__main__":
    main()
