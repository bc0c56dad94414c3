"""What of the real model's table is fine-tuning alone, and what a strict reward: part of `make results-real`.

The plan, written before the first run, after a reader's objections to the first tables. The same model, questions and
seeds as in `real_model.py`.

- Fine-tuning alone: the 15 steps on answers that "SFT on answers, GRPO" begins with, asked before GRPO, and 39 such
  steps, as many as that arm has in all. Seen before: the first training step of that arm, 32 rollouts, had successes
  of 3, 72 and 72 % on one hop and 78, 72 and 97 % on pair. So fine-tuning is expected to be most of that arm.
- Kinder rewards: what the untrained model says to the bare question, judged by the exact match that all arms are
  rewarded for, by whether the answer contains the name, and by F1; with the budget of training and with one that lets
  it finish its sentence. A kinder reward that is met now and then is a way out that needs no likelihood.
- What `qredit probe` advises for both tasks, bare and behind the best wording.

Small results are kept in experiments/kept/real. `--minutes` begins no run after so many, `--write` writes the table of
what is there and asks no model. Some two minutes a run on a quiet core.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import real_plan as plan
from page import gap_cell, insert, paired_difference, percent_cell
from real_model import (
    BARE,
    FOLDER,
    HELD,
    PAGE,
    STORE,
    ask_questions,
    choose_rates,
    choose_wording,
    make_options,
    name_run,
    read_result,
    remove_weights,
)
from rich.console import Console
from run_budget import RunBudget, parse_workers

from qredit.cli.probe_command import run as run_probe
from qredit.evaluation.metrics import summarize
from qredit.runs.experiment import Variant, collect_facts, load_or_compute, sample_answers
from qredit.runs.parallel import run_parallel
from qredit.runs.sft import finetune
from qredit.runs.warm_start import split_arm

TEXT = Path(__file__).with_name("real_controls.md.in")
ARM = next(arm for arm in plan.ARMS if arm.name == "SFT on answers, GRPO")
SHOWN = (15, 39)
SCORERS = ("exact_match", "substring", "f1")
ROOMY = 48  # tokens, those of the answer among them, that let the model finish a sentence
PROBED = {"m": 8, "examples": 16}
READ_BY_PROBE = (
    *("task", "data", "model", "system_prompt", "instruction"),
    *("max_completion_length", "answer_budget", "cpu"),
)


@dataclass(frozen=True)
class Shown:
    """Fine-tuning on answers, and nothing behind it."""

    task: str
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"shown-{self.task}-{self.steps}-{self.seed}"

    def run(self, rate: float) -> None:
        """Fine-tune and ask, unless that is there.

        Args:
            rate: of the arm whose run it would be; fine-tuning has its own.
        """
        options = make_options(self.task, ARM, self.seed, rate, plan.STEPS)
        begun, _ = split_arm(ARM.objective)
        assert begun is not None
        warm_start, folder = replace(begun, steps=self.steps), FOLDER / self.name

        def make() -> dict[str, Any]:
            final = finetune(warm_start.make_options(options), folder / "sft", Console(quiet=True)).final
            answered = ask_questions(options, str(final), HELD)
            remove_weights(folder)
            return answered

        facts = collect_facts(Variant(options, warm_start=warm_start), HELD) | {"behind it": "nothing"}
        load_or_compute(folder, facts, make, STORE / f"{self.name}.json")


@dataclass(frozen=True)
class Kinder:
    """What the untrained model says, by several scorers."""

    task: str
    roomy: bool

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"kinder-{self.task}-{'roomy' if self.roomy else 'strict'}"

    def run(self, rate: float) -> None:
        """Ask, unless that is there.

        Args:
            rate: of no importance to a model that is not trained.
        """
        options = make_options(self.task, ARM, 0, rate, 1, wording=BARE)
        options = replace(options, reward=", ".join((SCORERS[0], *(f"0 * {one}" for one in SCORERS[1:]))))
        if self.roomy:
            options = replace(options, max_completion_length=ROOMY, answer_budget=ROOMY // 2)

        def make() -> dict[str, Any]:
            answered = sample_answers(options, None, HELD)
            found = {name: summarize(answered, name, HELD.k)["p@1"].value for name in SCORERS}
            return found | {"said": [question.predictions[0] for question in answered[:8]]}

        facts = collect_facts(Variant(options, trained=False), HELD)
        load_or_compute(FOLDER / self.name, facts, make, STORE / f"{self.name}.json")


@dataclass(frozen=True)
class Probed:
    """What `qredit probe` advises."""

    task: str
    worded: bool

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"probe-{self.task}-{'worded' if self.worded else 'bare'}"

    def run(self, rate: float) -> None:
        """Probe, unless that is there.

        Args:
            rate: of no importance to a model that is not trained.
        """
        wording = plan.list_wordings(self.task)[choose_wording(self.task)] if self.worded else BARE
        options = make_options(self.task, ARM, 0, rate, 1, wording=wording)
        given = {name: value for name in READ_BY_PROBE if (value := getattr(options, name)) is not None} | PROBED

        def make() -> dict[str, Any]:
            quiet = Console(quiet=True)
            told = run_probe(given, quiet, quiet)
            right = [each for group in told["right"] for each in group]
            return {
                "success": sum(right) / len(right),
                "p_hat": told["predicted"]["p_hat"],
                "forced": told["forced"],
                "advice": told["advice"],
                "notices": told["notices"],
            }

        facts = collect_facts(Variant(options, trained=False), HELD) | {"probe": PROBED}
        load_or_compute(FOLDER / self.name, facts, make, STORE / f"{self.name}.json")


Job = Shown | Kinder | Probed


def list_jobs() -> list[Job]:
    """In the order in which they are run."""
    shown = [Shown(task, steps, seed) for steps in SHOWN for seed in plan.SEEDS for task in plan.TASKS]
    kinder = [Kinder(task, roomy) for task in plan.TASKS for roomy in (False, True)]
    return [*shown, *kinder, *(Probed(task, worded) for task in plan.TASKS for worded in (False, True))]


def run_job(job: Job, rate: float, budget: RunBudget) -> None:
    """One of them.

    Args:
        job: which.
        rate: of the arm "SFT on answers, GRPO".
        budget: whether it is begun.
    """
    if not budget.is_spent:
        job.run(rate)


def write_shown() -> Iterator[str]:
    """A line for each task and number of steps: success, and by how much it is below that with GRPO behind it."""
    for task in plan.TASKS:
        for steps in SHOWN:
            found = {seed: read_result(Shown(task, steps, seed).name) for seed in plan.SEEDS}
            own = {seed: one for seed, one in found.items() if one is not None}
            if not own:
                continue
            behind = {seed: one for seed in own if (one := read_result(name_run(task, ARM, seed, 0.0))) is not None}
            gap = paired_difference([own[seed] for seed in behind], list(behind.values())) if behind else None
            names = ("p@1", f"p@{HELD.k}", f"m@{HELD.k}")
            cells = [percent_cell([one[name] for one in own.values()]) for name in names]
            cells.append("" if gap is None else gap_cell(gap))
            yield f"| {task} | {steps} | {len(own)} | {' | '.join(cells)} |"


def write_kinder() -> Iterator[str]:
    """A line for each task and budget."""
    for task in plan.TASKS:
        for roomy in (False, True):
            found = read_result(Kinder(task, roomy).name)
            if found is not None:
                tokens = ROOMY if roomy else plan.COMPLETION[task]
                yield f"| {task} | {tokens} | {' | '.join(f'{100 * found[name]:.1f}' for name in SCORERS)} |"


def write_probed() -> Iterator[str]:
    """A line for each task and wording."""
    for task in plan.TASKS:
        for worded in (False, True):
            found = read_result(Probed(task, worded).name)
            if found is not None:
                asked, likely = "best" if worded else "bare", found["p_hat"]["log10"]
                told = "–" if likely is None else f"{likely:.1f}"
                yield f"| {task} | {asked} | {100 * found['success']:.1f} | {told} | `{found['advice']['objective']}` |"


def main() -> None:
    """Run what is missing and write the section."""
    workers, budget = parse_workers(__doc__)
    console = Console(highlight=False)
    if not budget.is_spent:
        for task in plan.TASKS:
            choose_wording(task)  # asked here once: the runs read it
        rate = choose_rates(console, workers)[ARM.rate_of]
        run_parallel("controls", [partial(run_job, job, rate, budget) for job in list_jobs()], console, workers)
    tables = {"shown": write_shown(), "kinder": write_kinder(), "probed": write_probed()}
    said = {"questions": HELD.questions, "samples": HELD.k, "m": PROBED["m"], "examples": PROBED["examples"]}
    text = Template(TEXT.read_text()).substitute(said, **{name: "\n".join(rows) for name, rows in tables.items()})
    insert(PAGE, "real controls", text)


if __name__ == "__main__":
    main()
