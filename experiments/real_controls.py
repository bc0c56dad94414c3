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
- OPSD and RLPR once more, added when all their runs had ended at 0. OPSD learns to write as the model does that was
  told the answer: so how often that model is right, asked behind the hint that OPSD shows and behind one that shows
  the rewarded form, too (one of four other wordings, the only one that had more than one right sample in 192). Then
  OPSD with that hint, and RLPR with the learning rate of GARL .75, which is three times the one that it inherited.
  Since OPSD's rollouts were right in steps 3 and 5 of its first run and later no more, its teacher being the policy
  itself, also with the first weights as the teacher, which is what its authors' code does.
- A third learning rate for each arm that the sweep had: it had chosen the highest or the lowest of two. The arms keep
  the rates that they were run with.
- A format reward that can be met: the reward `format` of the first table asks for closed thinking, of which no rollout
  shows any, so it was the same for all. Here a tenth of the reward is for an answer of one capitalised word.

Small results are kept in experiments/kept/real. `--minutes` begins no run after so many, `--write` writes the table of
what is there and asks no model. Some two minutes a run on a quiet core.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from string import Template
from typing import Any

import real_plan as plan
from page import gap_cell, insert, paired_difference, percent_cell, write_jsonl
from real_model import (
    BARE,
    CHOOSING,
    FOLDER,
    HELD,
    PAGE,
    STORE,
    Key,
    ask_questions,
    choose_rates,
    choose_wording,
    evaluate,
    list_questions,
    make_options,
    name_run,
    read_kept,
    read_rates,
    read_result,
    remove_weights,
    run,
    short,
    tell_success,
    try_rate,
)
from rich.console import Console
from run_budget import RunBudget, parse_workers

from qredit.cli.probe_command import run as run_probe
from qredit.core.hint import HINT_TEMPLATE, fill_template
from qredit.evaluation.metrics import summarize
from qredit.runs.experiment import Variant, collect_facts, load_or_compute, sample_answers
from qredit.runs.parallel import run_parallel
from qredit.runs.sft import finetune
from qredit.runs.smollm2 import SMOLLM2
from qredit.runs.warm_start import split_arm
from qredit.stats.interval import Interval

TEXT = Path(__file__).with_name("real_controls.md.in")
TOLD_TASK = plan.TASKS[0]
ARM = next(arm for arm in plan.ARMS if arm.name == "SFT on answers, GRPO")
SHOWN = (15, 39)
SCORERS = ("exact_match", "substring", "f1")
ROOMY = 48  # tokens, those of the answer among them, that let the model finish a sentence
PROBED = {"m": 8, "examples": 16}
HINTS = {
    "OPSD's": HINT_TEMPLATE,
    "with the form": "{prompt}\n\n(The correct answer is {answer}. Write nothing but:\nAnswer:\n{answer})",
}
TOLD = f"behind_prompt({HINTS['with the form']!r}, model={SMOLLM2!r})"
AGAIN = (
    plan.Arm("OPSD, hint with the form", f"opsd(template={HINTS['with the form']!r})"),
    plan.Arm(
        "the same, the first weights teach",
        "Objective(on_span('sampled', teacher_log_ratio('told')), score_function(2.0), mean_per_token())",
        field=(f"logp@told={TOLD}",),
    ),
    plan.Arm("RLPR, rate of GARL .75", "rlpr()"),
    plan.Arm(
        "GRPO, format reward",
        "grpo()",
        rate_of="best prompt, GRPO",
        reward="exact_match, 0.1 * answer_form:one_word",
    ),
)
BEYOND = {"GARL .75": 3e-4, "log-prob": 3e-4, "best prompt, GRPO": 1e-5}  # the edge that each arm of the sweep chose
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

    def run(self, rates: Mapping[str, float]) -> None:
        """Fine-tune and ask, unless that is there.

        Args:
            rates: of the swept arms; fine-tuning has its own.
        """
        options = make_options(self.task, ARM, self.seed, rates[ARM.rate_of], plan.STEPS)
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

    def run(self, rates: Mapping[str, float]) -> None:
        """Ask, unless that is there.

        Args:
            rates: of no importance to a model that is not trained.
        """
        options = make_options(self.task, ARM, 0, rates[ARM.rate_of], 1, wording=BARE)
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

    def run(self, rates: Mapping[str, float]) -> None:
        """Probe, unless that is there.

        Args:
            rates: of no importance to a model that is not trained.
        """
        wording = plan.list_wordings(self.task)[choose_wording(self.task)] if self.worded else BARE
        options = make_options(self.task, ARM, 0, rates[ARM.rate_of], 1, wording=wording)
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


@dataclass(frozen=True)
class Hinted:
    """What the untrained model says that was told the answer: OPSD's teacher at the start."""

    hint: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"hinted-{short(self.hint)}"

    def run(self, rates: Mapping[str, float]) -> None:
        """Ask training questions, unless that is there.

        Args:
            rates: of no importance to a model that is not trained.
        """
        options = make_options(TOLD_TASK, plan.Arm("", "grpo()"), 0, rates["GARL .75"], 1)
        evaluate(Variant(replace(options, data=str(self.write())), trained=False), self.name, CHOOSING)

    def write(self) -> Path:
        """The training questions with the answer in each prompt."""
        folder = FOLDER / "data" / self.name
        rows = [
            {"id": name, "prompt": fill_template(HINTS[self.hint], prompt, gold), "answer": gold}
            for name, prompt, gold in list_questions(TOLD_TASK, "train")
        ]
        write_jsonl(folder / "train.jsonl", rows)
        return folder


@dataclass(frozen=True)
class Again:
    """A rival that had ended at 0, with something changed."""

    arm: plan.Arm
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return name_run(TOLD_TASK, self.arm, self.seed, 0.0)

    def run(self, rates: Mapping[str, float]) -> None:
        """Train and ask, unless that is there.

        Args:
            rates: of the swept arms.
        """
        options = make_options(TOLD_TASK, self.arm, self.seed, rates[self.arm.rate_of], plan.STEPS)
        run(self.name, self.arm, options, HELD)


@dataclass(frozen=True)
class Beyond:
    """The sweep's run at a third learning rate, beyond the edge that was chosen."""

    of: str
    rate: float

    def run(self, rates: Mapping[str, float]) -> None:
        """Train, unless that is there.

        Args:
            rates: those that were chosen, which stay.
        """
        try_rate(next(arm for arm in plan.ARMS if arm.name == self.of), self.rate)


Kept = Mapping[Key, Mapping[str, Any]]
"""Results of the tables of the real model."""
Job = Shown | Kinder | Probed | Hinted | Again | Beyond


def list_jobs() -> list[Job]:
    """In the order in which they are run."""
    shown = [Shown(task, steps, seed) for steps in SHOWN for seed in plan.SEEDS for task in plan.TASKS]
    kinder = [Kinder(task, roomy) for task in plan.TASKS for roomy in (False, True)]
    probed = [Probed(task, worded) for task in plan.TASKS for worded in (False, True)]
    again = [Again(arm, seed) for seed in plan.SEEDS for arm in AGAIN]
    beyond = [Beyond(name, rate) for name, rate in BEYOND.items()]
    return [*shown, *kinder, *probed, *map(Hinted, HINTS), *again, *beyond]


def run_job(job: Job, rates: Mapping[str, float], budget: RunBudget) -> None:
    """One of them.

    Args:
        job: which.
        rates: of the swept arms.
        budget: whether it is begun.
    """
    if not budget.is_spent:
        job.run(rates)


def write_shown(kept: Kept) -> Iterator[str]:
    """A line for each task and number of steps: success, by how much it is below that with GRPO, and that of GARL .75.

    Args:
        kept: what was run of the tables of the real model.
    """
    for task in plan.TASKS:
        for steps in SHOWN:
            found = {seed: read_result(Shown(task, steps, seed).name) for seed in plan.SEEDS}
            own = {seed: one for seed, one in found.items() if one is not None}
            if not own:
                continue
            behind = {seed: one for seed in own if (one := read_result(name_run(task, ARM, seed, 0.0))) is not None}
            gap = paired_difference([own[seed] for seed in behind], list(behind.values())) if behind else None
            cells = tell_success(own.values())
            cells.append("" if gap is None else gap_cell(gap))
            cells.append(gap_cell(compare_shown(kept, task, steps, "GARL .75")))
            yield f"| {task} | {steps} | {len(own)} | {' | '.join(cells)} |"


def compare_shown(kept: Kept, task: str, steps: int, arm: str) -> Interval:
    """p@1 of fine-tuning alone less that of an arm, with the same seeds.

    Args:
        kept: what was run of the tables of the real model.
        task: whose questions.
        steps: of the fine-tuning.
        arm: of the tables of the real model; every seed of it was run.
    """
    shown = [read_result(Shown(task, steps, seed).name) for seed in plan.SEEDS]
    return paired_difference([one for one in shown if one], [kept[task, arm, seed, 0.0] for seed in plan.SEEDS])


def write_apart(kept: Kept, steps: int = SHOWN[-1]) -> str:
    """The arms that fine-tuning alone is told from on every task, with the differences.

    Args:
        kept: what was run of the tables of the real model.
        steps: of the fine-tuning.
    """
    told = []
    for arm in plan.SECOND_TASK_ARMS:
        gaps = [compare_shown(kept, task, steps, arm) for task in plan.TASKS]
        if all(gap.low > 0 or gap.high < 0 for gap in gaps):
            told.append(f"{arm} {' and '.join(map(gap_cell, gaps))}")
    return ", ".join(told) or "none"


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


def write_beyond() -> str:
    """What the third learning rates gave, beside those that were chosen from."""
    return "; ".join(f"{name}: {read_rates(name, [*plan.RATES, rate])}" for name, rate in BEYOND.items())


def write_hinted() -> str:
    """How often the untrained model is right behind each hint."""
    found = {hint: read_result(Hinted(hint).name) for hint in HINTS}
    return ", ".join(f"{hint}: {100 * one['p@1']:.1f} %" for hint, one in found.items() if one is not None)


def write_again() -> Iterator[str]:
    """A line for each arm as it was in the tables above, and as it was changed."""
    tabled = {arm.name: arm for arm in plan.ARMS}
    for arm in (tabled["OPSD"], *AGAIN[:2], tabled["RLPR"], *AGAIN[2:]):
        found = [one for seed in plan.SEEDS if (one := read_result(Again(arm, seed).name)) is not None]
        if found:
            cells = tell_success(found)
            cells.append(percent_cell([fmean(one["curve"][-5:]) for one in found]))
            cells.append(percent_cell([one["ended"] for one in found]))
            yield f"| {arm.name} | {len(found)} | {' | '.join(cells)} |"


def main() -> None:
    """Run what is missing and write the section."""
    workers, budget = parse_workers(__doc__)
    console = Console(highlight=False)
    if not budget.is_spent:
        for task in plan.TASKS:
            choose_wording(task)  # asked here once: the runs read it
        rates = choose_rates(console, workers)
        run_parallel("controls", [partial(run_job, job, rates, budget) for job in list_jobs()], console, workers)
    kept = read_kept()
    tables = {"shown": write_shown(kept), "kinder": write_kinder(), "probed": write_probed(), "again": write_again()}
    said: dict[str, Any] = {
        "questions": HELD.questions,
        "samples": HELD.k,
        "m": PROBED["m"],
        "examples": PROBED["examples"],
    }
    said |= {
        "hinted": write_hinted(),
        "beyond": write_beyond(),
        "apart": write_apart(kept),
        "asked": CHOOSING.questions * CHOOSING.k,
    }
    text = Template(TEXT.read_text()).substitute(said, **{name: "\n".join(rows) for name, rows in tables.items()})
    insert(PAGE, "real controls", text)


if __name__ == "__main__":
    main()
