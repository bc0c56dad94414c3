"""What parts of a run that are no objective did on one pocket task, each beside the same run without it.

The plan, written before the first run. Task, steps, rollouts, questions and learning rates are those of
`method_effects.py`: sums behind warm prompts, 14 steps, so that nobody is done. Each part gets the values of its page,
else values that were written here before they ran, and inherits the learning rate: none is tuned. Where a part needs
more than its own run (a teacher, an earlier run, fine-tuning) that comes on top and is not charged for. Exceptions:

- SAGE redraws groups without success, so its prompts are cold ones.
- InT replaces a step that does not tell the answer, and sums have one step. So it runs on pocket-hotpot, and the first
  hop is put right by whoever knows the rationale: what imitation does is seen, and not whether a model can correct.
- Sub-questions need questions of several hops, those of pocket-musique.
- SPECS has two runs of GRPO, so it stands beside one twice as long.

Seeds 0 to 2. An interval of the difference that holds 0 is called "none seen". One pocket task says little about a part
that was made for another setting: the page says that, too.

Runs lie in runs/results/parts, small results in experiments/kept/parts. `--minutes` begins no run after so many,
`--write` writes the table of what is there and trains nothing. About an hour of a core from scratch.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any

from curricula import EASIER_ALONE
from method_effects import BASE, GARL, GRPO, HELD, STEPS, choose_rates
from page import (
    NONE_SEEN,
    RUNS,
    count_seeds,
    gap_cell,
    insert,
    kept,
    machine_line,
    paired_difference,
    percent_cell,
    read_small_result,
    read_small_results,
    write_jsonl,
)
from real_model import ask_questions
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit.cli.probe_command import run as run_probe
from qredit.cli.text_data_command import run as run_text_data
from qredit.data.corrections import REPLACE_TASK
from qredit.runs.dpo import train_on_preferences
from qredit.runs.dpo_options import DpoOptions, PairOptions
from qredit.runs.experiment import hash_initial_weights, load_or_compute, read_curves
from qredit.runs.intervening import intervene
from qredit.runs.load import find_weights, load_examples
from qredit.runs.options import POCKET, TrainOptions
from qredit.runs.row_file import RowFile
from qredit.runs.sft import finetune
from qredit.runs.sft_options import SftOptions, ShownOptions
from qredit.runs.subgoal_data import cut_decompositions
from qredit.runs.train import train
from qredit.runs.warm_start import start_from
from qredit.stats.interval import Interval

FOLDER, PAGE = RUNS / "parts", Path("docs/results.md")
TEXT = Path(__file__).with_name("part_effects.md.in")
SEEDS = (0, 1, 2)
PROBED, ZERO_STEPS = 192, 6
PAFT, DAPO = "paft(q=0.75)", "dapo()"
LINK = "[results](results.md#parts-of-a-run-on-one-task)"
QUIET = Console(quiet=True)
NO_REWARD = "Objective(on_span('sampled', 0.0 * reward()))"
Prepare = Callable[[TrainOptions, Path], TrainOptions]


@dataclass(frozen=True, eq=False)
class Arm:
    """One kind of run; each is itself alone, so that it can be a key though its changes cannot.

    Attributes:
        told: what it is run with, in the table.
        objective: in its text form; None trains nothing behind what `prepare` made.
        changes: options that are not those of the task.
        prepare: makes what the run needs, in a folder, and puts it into the options.
        rate_of: the method whose learning rate it takes.
        system: the part, as docs/methods.md calls it; empty where another one is held against this.
        beside: the same without the part.
    """

    told: str
    objective: str | None = GRPO
    changes: Mapping[str, Any] = field(default_factory=dict)
    prepare: Prepare | None = None
    rate_of: str = GRPO
    system: str = ""
    beside: "Arm | None" = None

    @property
    def name(self) -> str:
        """As a folder is called."""
        told = self.told if self.beside is None else f"{self.system} {self.told}"
        return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in told).split())

    def make_options(self, rate: float, seed: int) -> TrainOptions:
        """One run, without what is prepared for it.

        Args:
            rate: learning rate.
            seed: of the run.
        """
        return replace(BASE, objective=self.objective or GRPO, lr=rate, seed=seed, **self.changes)


def teach(options: TrainOptions, folder: Path, fields: Sequence[str]) -> TrainOptions:
    """With a teacher: the same model after PAFT.

    Args:
        options: of the student.
        folder: of the teacher's run.
        fields: that it tells.
    """
    taught = replace(options, objective=PAFT, field=(), lr=None, seed=100)
    final = train(taught, folder, QUIET).final
    return replace(options, field=tuple(f"{name}=teacher_model('{final}')" for name in fields))


def teach_divergence(options: TrainOptions, folder: Path) -> TrainOptions:
    """With a teacher that tells KL(policy ‖ teacher)."""
    return teach(options, folder, ("kl@coach",))


def teach_adaptively(options: TrainOptions, folder: Path) -> TrainOptions:
    """With a teacher that tells what AdaKD reads."""
    return teach(options, folder, ("hellinger@coach",))


def follow_earlier_run(options: TrainOptions, folder: Path) -> TrainOptions:
    """With the schedule that the gradient norms of an earlier run give."""
    train(replace(options, seed=100), folder, QUIET)
    return replace(options, lr_schedule=f"refined('{folder}', power=1)", warmup=0)


def show(options: TrainOptions, folder: Path, shown: ShownOptions, shared: TrainOptions | None = None) -> TrainOptions:
    """Behind fine-tuning of as many steps.

    Args:
        options: of the run.
        folder: of the fine-tuning.
        shown: what of the data is shown.
        shared: the data; None takes those of the run.
    """
    chosen = replace(shared or options, objective=TrainOptions.objective, lr=None, training={}, steps=STEPS)
    return start_from(options, finetune(SftOptions(chosen, shown), folder, QUIET).final)


def show_rationales(options: TrainOptions, folder: Path) -> TrainOptions:
    """Behind fine-tuning on rationales and answers."""
    return show(options, folder, ShownOptions(rationales=True))


def show_hard_tokens(options: TrainOptions, folder: Path) -> TrainOptions:
    """The same on the tokens that Entropy-SFT keeps."""
    return show(options, folder, ShownOptions(rationales=True, keep_tokens="entropy_sft(keep=0.8, gamma=0.8)"))


def show_puzzles(options: TrainOptions, folder: Path) -> TrainOptions:
    """Behind fine-tuning on rationales of another task, star graphs."""
    puzzles = replace(options, task=EASIER_ALONE, style="cold", subset=None, max_completion_length=20, answer_budget=8)
    puzzles = replace(puzzles, model=str(get_pocket_model(options)))
    return show(options, folder, ShownOptions(rationales=True), puzzles)


def learn_preferences(options: TrainOptions, folder: Path) -> TrainOptions:
    """Behind a first run's pairs, preferred with a likelihood term by the model before it (SPECS)."""
    train(replace(options, keep_rollouts=True), folder / "zero", QUIET)
    shared = replace(
        start_from(options, get_pocket_model(options)),
        objective=TrainOptions.objective,
        lr=None,
        training={"loss_weights": [1.0, 1.0]},
    )
    pairs = PairOptions(run=str(folder / "zero"), beta=0.1, loss_type="sigmoid, sft")
    preferred = train_on_preferences(DpoOptions(shared, pairs), folder / "specs", QUIET)
    return start_from(options, preferred.final)


def correct_first_hop(questions: Sequence[tuple[str, str]]) -> list[str | None]:
    """Replies to `qredit intervene` by whoever reads the solution that is shown: the first step is its first hop."""
    replies: list[str | None] = []
    for task, about in questions:
        _, _, behind = about.partition("The right answer:\n")
        first = behind.split(". ", 1)[0] + "."
        attempt = about.partition('<step number="1">\n')[2].partition("\n</step>")[0]
        replies.append(first if task == REPLACE_TASK else "[2]" if attempt.strip() == first else "[1]")
    return replies


def imitate_corrections(options: TrainOptions, folder: Path) -> TrainOptions:
    """Behind fine-tuning on the beginnings of wrong rollouts with their first step put right (InT)."""
    zero = folder / "zero"
    train(replace(options, keep_rollouts=True, lr=None, steps=ZERO_STEPS), zero, QUIET)
    asked = start_from(options, get_pocket_model(options))
    intervene(
        *(asked, zero, None, QUIET),
        rollouts=None,
        steps="sentences",
        judge=correct_first_hop,
        step_tokens=24,
        tries=8,
        per_prompt=1,
        file=RowFile(folder / "corrections.jsonl", {}),
    )
    return show(asked, folder / "int", ShownOptions(completions=str(folder / "corrections.jsonl")))


def read_text(options: TrainOptions, folder: Path) -> TrainOptions:
    """Behind as many steps of RMT on 256 training questions with their rationales and answers, as one raw text."""
    shown = load_examples(options, "train", 256)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n\n".join(f"{one.prompt}\n{one.rationale}\n{one.answer}" for one in shown))
    questions, model = folder / "train.jsonl", str(get_pocket_model(options))
    asked = {"medium": 0.5, "hard": 1.5, "window": 96, "questions": 200, "output": str(questions), "model": model}
    run_text_data({"texts": [str(folder / "text.txt")], "cpu": True, "seed": options.seed, **asked}, QUIET, QUIET)
    read = start_from(replace(options, lr=None), Path(model))
    read = replace(
        read,
        task="jsonl",
        data=str(questions),
        style="cold",
        objective="rmt(weight=0.2, peak=1.0, next_token=0.1)",
        drawing="read_on()",
        curriculum="shift_tiers(('easy', 'medium', 'hard'), first=(0.8, 0.2, 0.0), last=(0.2, 0.3, 0.5))",
        m=options.m + 1,
        training={},
    )
    return start_from(options, train(read, folder / "run", QUIET).final)


def ask_subquestions_too(options: TrainOptions, folder: Path) -> TrainOptions:
    """With the sub-questions of each question beside it."""
    cut = cut_decompositions(options, "train")
    write_jsonl(folder / "subgoals.jsonl", cut.rows)
    total, answer = options.budget
    return replace(
        options,
        task="jsonl",
        data=str(folder / "subgoals.jsonl"),
        style="cold",
        max_completion_length=total,
        answer_budget=answer,
        model=str(get_pocket_model(options)),
        curriculum="mix_easier(0.5)",
    )


def choose_by_probe(options: TrainOptions, folder: Path) -> TrainOptions:
    """On the examples that a probe of the model found neither hopeless nor mastered."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {
        "task": options.task,
        "style": options.style,
        "m": 8,
        "examples": PROBED,
        "seed": options.seed,
        "cpu": True,
    }
    run_probe({**given, "per_prompt": str(folder / "probe.jsonl")}, QUIET, QUIET)
    return replace(
        options, subset=str(PROBED), probe=str(folder / "probe.jsonl"), keep="success > 0.1 and success < 0.9"
    )


def get_pocket_model(options: TrainOptions) -> Path:
    """The folder of a task's own model, by which models behind fine-tuning begin."""
    return Path(find_weights(replace(options, model=POCKET)))


SUMS, SHOWN = Arm("`grpo()`"), Arm("14 steps of fine-tuning on rationales", None, prepare=show_rationales)
SUMS_DAPO = Arm("`dapo()`", DAPO)
TAUGHT = Arm(
    "`reverse_kl(1, 'coach')` alone",
    f"{NO_REWARD} | reverse_kl(1.0, 'coach')",
    prepare=teach_divergence,
    rate_of=GARL,
)
COLD = Arm("`grpo()`, cold", changes={"style": "cold"})
FEW = Arm("`grpo()` on 100 questions", changes={"subset": "100"})
SOME = Arm(f"`grpo()` on {PROBED} questions", changes={"subset": str(PROBED)})
TWICE = Arm(f"`grpo()`, {2 * STEPS} steps", changes={"steps": 2 * STEPS})
CHAINS = Arm("`grpo()` on pocket-musique", changes={"task": "pocket-musique"})
HOPS = Arm("`grpo()` on pocket-hotpot", changes={"task": "pocket-hotpot"})
BESIDE = (SUMS, SUMS_DAPO, SHOWN, TAUGHT, COLD, FEW, SOME, TWICE, HOPS, CHAINS)
PARTS = (
    Arm("`branch_at_entropy()`", DAPO, {"drawing": "branch_at_entropy()"}, system="CURE", beside=SUMS_DAPO),
    Arm(
        "`dynamic_sampling=3`",
        DAPO,
        {"training": {**BASE.training, "dynamic_sampling": 3}},
        system="DAPO's dynamic sampling",
        beside=SUMS_DAPO,
    ),
    Arm(
        "`spear(buffer=16, baseline=32, steps=7, low=1, high=40)`",
        changes={"replay": "spear(buffer=16, baseline=32, steps=7, low=1, high=40)"},
        system="SPEAR",
        beside=SUMS,
    ),
    Arm(
        "`pool(draw=16, weight=1, epsilon_low=0.2, epsilon_high=0.2)`",
        changes={"replay": "pool(draw=16, weight=1, epsilon_low=0.2, epsilon_high=0.2)"},
        system="TP-GRPO's pool",
        beside=SUMS,
    ),
    Arm(
        "`--source decomposition`, `mix_easier(0.5)`",
        changes={"task": "pocket-musique"},
        prepare=ask_subquestions_too,
        system="R3's beginnings, and sub-questions",
        beside=CHAINS,
    ),
    Arm(
        "`hint_failed='gold'`, cold",
        changes={"style": "cold", "training": {**BASE.training, "hint_failed": "gold"}},
        system="SAGE, NuRL",
        beside=COLD,
    ),
    Arm(
        "one question, 128 rollouts of it",
        changes={"subset": "1", "prompts_per_step": 1, "m": 128},
        system="1-shot RLVR",
        beside=SUMS,
    ),
    Arm(
        f"the {PROBED} questions, those between 0.1 and 0.9",
        prepare=choose_by_probe,
        system="Choosing examples by a probe",
        beside=SOME,
    ),
    Arm(
        "`shrink=0.9, perturb=0.01`", changes={"shrink": 0.9, "perturb": 0.01}, system="Shrink and perturb", beside=SUMS
    ),
    Arm(
        "`entropy_sft(keep=0.8, gamma=0.8)`",
        None,
        prepare=show_hard_tokens,
        system="Light-IF's Entropy-SFT",
        beside=SHOWN,
    ),
    Arm(
        "rationales of star graphs first, then 100 questions",
        changes={"subset": "100"},
        prepare=show_puzzles,
        system="Warm Up",
        beside=FEW,
    ),
    Arm("RMT on their text first", prepare=read_text, system="RMT's questions and tiers", beside=SUMS),
    Arm(f"{STEPS} steps, preferences, {STEPS} steps", prepare=learn_preferences, system="SPECS", beside=TWICE),
    Arm(
        "first hops put right, imitated, then `grpo()`",
        changes={"task": "pocket-hotpot"},
        prepare=imitate_corrections,
        system="InT",
        beside=HOPS,
    ),
    Arm(
        "`adaptive_kl(1, 'coach', warmup=1)` alone",
        f"{NO_REWARD} | adaptive_kl(1.0, 'coach', warmup=1)",
        prepare=teach_adaptively,
        rate_of=GARL,
        system="AdaKD",
        beside=TAUGHT,
    ),
    Arm("`muon()`", changes={"optimizer": "muon()"}, system="Muon", beside=SUMS),
    Arm("`rex()`", changes={"lr_schedule": "rex()"}, system="REX", beside=SUMS),
    Arm("`refined('RUN', power=1)`", prepare=follow_earlier_run, system="Refined linear decay", beside=SUMS),
)
Found = Mapping[tuple[Arm, int], Mapping[str, Any]]


def find_folder(arm: Arm, seed: int) -> Path:
    """Where a run is kept."""
    return FOLDER / f"{arm.name}-{seed}"


def run_arm(arm: Arm, rate: float, seed: int) -> dict[str, Any]:
    """One run and its success on held-out questions.

    Args:
        arm: which.
        rate: learning rate.
        seed: of the run.
    """
    options, folder = arm.make_options(rate, seed), find_folder(arm, seed)

    def make() -> dict[str, Any]:
        ready = options if arm.prepare is None else arm.prepare(options, folder / "prepared")
        final, curves = ready.model, {}
        if arm.objective is not None:
            final = str(train(ready, folder / "run", QUIET).final)
            curves = read_curves(folder / "run" / "metrics.jsonl")
        return ask_questions(options, final, HELD) | curves

    facts = {
        "train": options.changed(),
        "objective": arm.objective,
        "prepared": None if arm.prepare is None else arm.prepare.__name__,
        "weights": hash_initial_weights(options),
        "held": asdict(HELD),
    }
    return load_or_compute(folder, facts, make, kept(folder))


def list_jobs() -> list[tuple[Arm, int]]:
    """In the order in which they are run: a seed of all before the next one."""
    return [(arm, seed) for seed in SEEDS for arm in (*BESIDE, *PARTS)]


def compare(found: Found, arm: Arm) -> tuple[list[float], list[float], Interval | None]:
    """p@1 of a part, of the same without it, and the difference, over the seeds that both have.

    Args:
        found: results by arm and seed.
        arm: the part.
    """
    assert arm.beside is not None
    seeds = [seed for seed in SEEDS if (arm, seed) in found and (arm.beside, seed) in found]
    own, others = ([found[one, seed] for seed in seeds] for one in (arm, arm.beside))
    gap = paired_difference(own, others) if seeds else None
    return [one["p@1"] for one in own], [one["p@1"] for one in others], gap


def write_rows(found: Found) -> Iterator[str]:
    """A line for each part that has a run."""
    for arm in PARTS:
        own, others, gap = compare(found, arm)
        if gap is not None and arm.beside is not None:
            cells = (arm.system, arm.told, arm.beside.told, str(len(own)), percent_cell(own), percent_cell(others))
            yield f"| {' | '.join(cells)} | {gap_cell(gap)} |"


def tell_part_effects() -> dict[str, str]:
    """What docs/methods.md says of each part, by its name there; read from what is kept."""
    found = read_small_results({(arm, seed): kept(find_folder(arm, seed)) for arm, seed in list_jobs()})
    told = {}
    for arm in PARTS:
        own, _, gap = compare(found, arm)
        if gap is not None:
            verdict = f"{NONE_SEEN.lower()}: " if gap.low <= 0 <= gap.high else ""
            told[arm.system] = f"{verdict}{gap_cell(gap)} points ({count_seeds(len(own))}; {LINK})"
    return told


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    rates = choose_rates(RunBudget(0.0, write=True, start=0.0))
    assert rates is not None, "make results-effects chooses the learning rates"

    def run(job: tuple[Arm, int]) -> dict[str, Any] | None:
        arm, seed = job
        return read_small_result(kept(find_folder(*job))) if budget.is_spent else run_arm(arm, rates[arm.rate_of], seed)

    found = run_jobs(
        list_jobs(),
        run,
        lambda job, result: f"{job[0].name} seed {job[1]}: p@1 {100 * result['p@1']:.1f} %",
        Console(highlight=False),
    )
    if found:
        text = Template(TEXT.read_text()).substitute(
            rows="\n".join(write_rows(found)), machine=machine_line(), steps=STEPS, held=HELD.questions
        )
        insert(PAGE, "part effects", text)


if __name__ == "__main__":
    main()
