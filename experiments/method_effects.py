"""What each method did on one pocket task that tells methods apart: `make results-effects`; its page says it.

The plan. Task: the sums of pocket-finqa behind warm prompts, where the base model is right in four of ten samples.
`STEPS` steps of 8 questions × 16 rollouts, each generation used twice, so that rules about ratios have something to
act on. So few steps are to leave the best methods below 85 %: nobody is done, and how fast one learns is seen. In a
pilot of 20 steps at 3e-4 eight methods ended between 48 % (pass@4) and 92 % (psr, rft), three seeds of GRPO between
82 and 90 %: that was late for the best, so steps were cut. The learning rate is chosen for `SWEPT` by a sweep of
their own (seed 100, validation questions); methods that read the likelihood of the reference answer take GARL's, the
others GRPO's. Seeds 0 to 2 for `LEADING`, seed 0 for their relatives: an effect of theirs that lies within the range
of the leading ones' seeds says nothing, and their pages say so.

Every registered method is there at its defaults, at the example values of its page where it has none. Left out are
rules over turns (`turn_rules.py` has those) and the methods whose field another model fills. Of the steps of a sum a
check of its arithmetic is the judge.

Runs lie in runs/results/effects, small results in experiments/kept/effects. `--minutes` begins no run after so many,
`--write` writes the table of what is there and trains nothing. About an hour on a quiet core.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
from page import (
    RUNS,
    find_spread,
    gap_cell,
    insert,
    kept,
    machine_line,
    paired_difference,
    percent_cell,
    read_small_result,
    tell_gap,
)
from real_model import ask_questions
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit.objectives import REGISTRY
from qredit.objectives.parsing import example
from qredit.runs.experiment import EvalSpec, Variant, collect_facts, load_or_compute, read_curves
from qredit.runs.options import TrainOptions
from qredit.runs.train import train
from qredit.stats.interval import Interval

FOLDER, PAGE = RUNS / "effects", Path("docs/results.md")
TEXT = Path(__file__).with_name("method_effects.md.in")
STEPS, SEEDS, SWEEP_SEED = 14, (0, 1, 2), 100
RATES = (3e-4, 1e-3, 1e-4)  # in order of preference among equals
SWEPT = ("grpo()", "garl(q=0.75)")
GRPO, GARL = SWEPT
LEADING = (GRPO, GARL, "paft(q=0.75)", "logprob()", "dapo()", "pass_at_k(k=4)", "nsr()")
HELD, CHOOSING = EvalSpec(questions=256, k=4), EvalSpec(questions=128, k=4, split="validation")
BASE = TrainOptions(
    task="pocket-finqa", style="warm", steps=STEPS, save_every=0, cpu=True, training={"num_iterations": 2}
)
OVER_TURNS = frozenset({"turn_reward", "turn", "state", "answer_logp_at", "answer_logp_after", "pool"})
JUDGED = ("tp_grpo", "istar")
CHECKED = "check_step_scores(arithmetic())"
FIELDS = {
    "capo": ("wrong_step=check_wrong_steps(arithmetic())",),
    "pure": (f"step_score={CHECKED}",),
    "pure_strict": (f"step_score={CHECKED}",),
    "hicra": ("planning=planning_grams(shortest=3, longest=5, least_rollouts=3)",),
    "ma_rlhf": ("macro=macros_by_length(5)", "value=critic()"),
    "t_reg": (
        'logp@better=behind_prompt("{prompt}\\n\\nGive a correct and careful answer.")',
        'logp@worse=behind_prompt("{prompt}\\n\\nGive a wrong and careless answer.")',
    ),
    "t1": (
        "degenerate=degenerate_rollouts(gram=8, repeats=4, garbled=0.1)",
        "logp@ema=moving_average(rate=0.99)",
    ),
    "brpo": ("budget=truncated_answers((8, 16, 24, 32), answers=4)",),
}

DRAWN = {"aepo": "hold_entropy(target=0.2, most=0.25)"}


@dataclass(frozen=True)
class Arm:
    """One method.

    Attributes:
        name: under which it is registered.
        objective: in its text form.
        reads_golds: it reads the likelihood of the reference answer, and takes GARL's learning rate.
    """

    name: str
    objective: str
    reads_golds: bool

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those it is run with."""
        return SEEDS if self.objective in LEADING else SEEDS[:1]


def list_arms() -> Iterator[Arm]:
    """The leading ones, then every other method that this task can measure."""
    calls = {name: f"{name}({REGISTRY[name].example})" for name in REGISTRY}
    calls |= {text.partition("(")[0]: text for text in LEADING}
    for name in sorted(REGISTRY, key=lambda name: (calls[name] not in LEADING, name)):
        needs = example(name).needs
        if name not in JUDGED and not needs & OVER_TURNS:
            yield Arm(name, calls[name], any(need.startswith(("answer_logp", "logp@hint")) for need in needs))


def make_options(arm: Arm, rate: float, seed: int) -> TrainOptions:
    """One run."""
    return replace(
        BASE,
        objective=arm.objective,
        field=FIELDS.get(arm.name, ()),
        drawing=DRAWN.get(arm.name),
        lr=rate,
        seed=seed,
    )


def run_arm(arm: Arm, rate: float, seed: int, budget: RunBudget) -> dict[str, Any] | None:
    """One run and its success on held-out questions; None where it is not there and none is to be begun.

    Args:
        arm: the method.
        rate: learning rate.
        seed: of the run.
        budget: whether a missing run is made.
    """
    options = make_options(arm, rate, seed)
    folder, held = FOLDER / f"{plain(arm.objective)}-{rate:g}-{seed}", CHOOSING if seed == SWEEP_SEED else HELD
    if budget.is_spent:  # whatever reads the tables computes nothing, on however many threads it is
        return read_small_result(kept(folder))

    def make() -> dict[str, Any]:
        final = str(train(options, folder / "run", Console(quiet=True)).final)
        return ask_questions(options, final, held) | read_curves(folder / "run" / "metrics.jsonl")

    return load_or_compute(folder, collect_facts(Variant(options), held), make, kept(folder))


def choose_rates(budget: RunBudget) -> dict[str, float] | None:
    """The learning rate of each swept method, by p@1 on validation questions; None where the sweep is not done."""
    chosen = {}
    for arm in (one for one in list_arms() if one.objective in SWEPT):
        found = {rate: run_arm(arm, rate, SWEEP_SEED, budget) for rate in RATES}
        success = {rate: result["p@1"] for rate, result in found.items() if result is not None}
        if len(success) < len(RATES):
            return None
        chosen[arm.objective] = max(RATES, key=lambda rate: success[rate])
    return chosen


Found = Mapping[tuple[Arm, int], Mapping[str, Any]]


def run_all(budget: RunBudget, console: Console) -> tuple[dict[str, float], Found]:
    """Learning rates and every arm's results, seed 0 of all before further seeds."""
    rates = choose_rates(budget)
    if rates is None:
        return {}, {}
    found = run_jobs(
        [(arm, seed) for seed in SEEDS for arm in list_arms() if seed in arm.seeds],
        lambda job: run_arm(job[0], rates[GARL if job[0].reads_golds else GRPO], job[1], budget),
        lambda job, result: f"{job[0].objective} seed {job[1]}: p@1 {100 * result['p@1']:.1f} %",
        console,
    )
    return rates, found


def compare(found: Found, arm: Arm) -> tuple[list[Mapping[str, Any]], Interval | None]:
    """The results of an arm, and its p@1 less that of GRPO with the same seeds."""
    seeds = [seed for seed in arm.seeds if (arm, seed) in found]
    own = [found[arm, seed] for seed in seeds]
    grpo = {seed: result for (one, seed), result in found.items() if one.objective == GRPO}
    if arm.objective == GRPO or not own or any(seed not in grpo for seed in seeds):
        return own, None
    return own, paired_difference(own, [grpo[seed] for seed in seeds])


def write_rows(found: Found) -> str:
    """One line for each method that has a run, those with the most success first."""
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in found):
        own, gap = compare(found, arm)
        success = [one["p@1"] for one in own]
        told = "" if gap is None else gap_cell(gap)
        cells = [percent_cell(success), percent_cell([one[f"p@{HELD.k}"] for one in own]), told]
        rows.append((-sum(success) / len(success), f"| `{arm.objective}` | {len(own)} | {' | '.join(cells)} |"))
    return "\n".join(line for _, line in sorted(rows))


def tell_effects() -> dict[str, str]:
    """What the page of each method says of its run here, by name; read from what is kept."""
    spent = RunBudget(0.0, write=True, start=0.0)
    rates, found = run_all(spent, Console(quiet=True))
    if not rates:
        return {}
    spread = find_spread(list_success(found))  # a single seed is held against it; several have their own interval
    told = {}
    for arm in dict.fromkeys(arm for arm, _ in found):
        own, gap = compare(found, arm)
        if gap is not None:
            alike = len(own) == 1 and abs(gap.value) <= spread
            doubt = "the interval holds 0" if gap.low <= 0.0 <= gap.high else "seeds differ by as much" if alike else ""
            measured = f"p@1 {percent_cell([one['p@1'] for one in own])} %, {gap_cell(gap)}"
            link = "[methods on one task](../results.md#methods-on-one-task)"
            told[arm.name] = tell_gap(measured, len(own), link, doubt)
    return told


def list_success(found: Found) -> list[list[float]]:
    """p@1 of each seed, arm by arm."""
    by_arm: dict[Arm, list[float]] = {}
    for (arm, _), result in found.items():
        by_arm.setdefault(arm, []).append(result["p@1"])
    return list(by_arm.values())


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    rates, found = run_all(budget, Console(highlight=False))
    if found:
        said = {"rates": json.dumps(rates)[1:-1].replace('"', "`"), "machine": machine_line(), "steps": STEPS}
        spread = f"{100 * find_spread(list_success(found)):.1f}"
        text = Template(TEXT.read_text()).substitute(said, spread=spread, rows=write_rows(found), held=HELD.questions)
        insert(PAGE, "method effects", text)


if __name__ == "__main__":
    main()
