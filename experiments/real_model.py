"""Every rival in one table, on a real pretrained model: `make results-real`, which goes on where it was stopped.

What is run was fixed before (`real_plan.py`). Runs lie in runs/results/real, small results in experiments/kept/real.
"""

import json
import random
import shutil
import statistics
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from string import Template
from typing import Any

import real_plan as plan
from page import (
    KEPT,
    RUNS,
    gap_cell,
    insert,
    list_other_golds,
    paired_difference,
    paired_t,
    percent_cell,
    read_small_result,
    write_jsonl,
)
from real_plan import Arm, Wording
from rich.console import Console
from run_budget import RunBudget, parse_workers

from qredit import tasks
from qredit.evaluation.metrics import compute_question_metrics, summarize
from qredit.runs.curve_plots import plot_curves
from qredit.runs.experiment import (
    EvalSpec,
    Variant,
    collect_facts,
    hash_initial_weights,
    hash_weights,
    load_or_compute,
    read_curves,
    sample_answers,
)
from qredit.runs.folder import RunFolder
from qredit.runs.options import TrainOptions
from qredit.runs.parallel import run_parallel
from qredit.runs.sft import finetune
from qredit.runs.smollm2 import SMOLLM2
from qredit.runs.train import train
from qredit.runs.warm_start import split_arm, start_from
from qredit.tasks.base import Split

PICTURE = Path("docs/real-model.png")
DRAWN = ("GRPO", "GARL 0", "GARL .75", "log-prob", "SFT on answers, GRPO", "best prompt, GRPO")
FOLDER, STORE, PAGE = RUNS / "real", KEPT / "real", Path("docs/results.md")
TEXT = Path(__file__).with_name("real_model.md.in")
HELD = EvalSpec(questions=plan.HELD_QUESTIONS, k=plan.HELD_SAMPLES)
CHOOSING = EvalSpec(questions=plan.CHOOSING_QUESTIONS, k=plan.CHOOSING_SAMPLES, seed=2, split="train")
SAVE_EVERY = 10
BARE = Wording()
TOLD = {"one-hop": "% where the country is asked for", "pair": "% for city and country"}
SUCCESS = "rewards/exact_match/mean"


@cache
def write_questions(task: str, flipped: float = 0.0, wording: Wording = BARE) -> Path:
    """The questions of a task as files of one's own, a share of the training golds replaced.

    A wrong gold is another name of those that the right one is chosen from: what the last words of the facts of its
    relation name.
    """
    examples = write_examples(task, wording)
    kind = f"{'-wrong' if flipped else ''}{f'-{wording.turns}' if examples else ''}"
    folder = FOLDER / "data" / f"{task}{kind}"
    rng = random.Random(0)
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        rows = []
        for name, prompt, right in list_questions(task, split):
            gold = right
            if flipped and split == "train" and rng.random() < flipped:
                gold = rng.choice(sorted(list_other_golds(prompt, gold)))
            asked = [*examples, {"role": "user", "content": prompt}] if examples else prompt
            rows.append({"id": name, "prompt": asked, "answer": gold, "right": right})
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def list_questions(task: str, split: Split) -> Iterator[tuple[str, str, str]]:
    """Id, question and answer. They ask where one of the cities of a pocket question lies.

    The answer is the country, or city and country where the task is "pair".
    """
    cities = random.Random(0)
    for example in tasks.get("pocket-hotpot").load(None, split, "cold"):
        facts = [fact for fact in str(example.prompt).split("\n") if " lies in " in fact]
        city, country = cities.choice(facts)[:-1].split(" lies in ")
        prompt = "\n".join([*facts, f"Which country does {city} lie in?"])
        yield str(example.id), prompt, f"{city}, {country}" if task == "pair" else country


def write_examples(task: str, wording: Wording) -> list[dict[str, str]]:
    """The turns of the chat that come before a question."""
    turns = []
    for question, answer in plan.EXAMPLES[task][: wording.turns]:
        asked = "\n\n".join(filter(None, (question, wording.instruction)))
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return turns


def make_options(
    task: str, arm: Arm, seed: int, rate: float, steps: int, flipped: float = 0.0, wording: Wording | None = None
) -> TrainOptions:
    """One run: equal rollouts, questions and budget for every arm.

    Args:
        task: whose questions.
        arm: the method.
        seed: of the run.
        rate: learning rate.
        steps: optimiser steps.
        flipped: share of wrong training golds.
        wording: how questions are put; None puts them bare, or as is best where the arm may choose.
    """
    chosen = wording or (plan.list_wordings(task)[choose_wording(task)] if arm.worded else BARE)
    return TrainOptions(
        task="jsonl",
        data=str(write_questions(task, flipped, chosen)),
        model=SMOLLM2,
        objective=split_arm(arm.objective)[1],
        reward=arm.reward,
        field=arm.field,
        system_prompt=chosen.system,
        instruction=chosen.instruction,
        m=plan.ROLLOUTS,
        prompts_per_step=plan.PROMPTS,
        max_completion_length=plan.COMPLETION[task],
        answer_budget=plan.ANSWER[task],
        steps=steps,
        lr=rate,
        seed=seed,
        cpu=True,
        save_every=SAVE_EVERY,
        training={"save_total_limit": 1},
    )


@cache
def choose_wording(task: str) -> str:
    """The wording after which the untrained model answers most training questions, asked once and kept."""

    def ask(name: str) -> float:
        options = make_options(task, Arm("", "grpo()"), 0, plan.RATES[0], 1, wording=plan.list_wordings(task)[name])
        variant = Variant(options, trained=False)
        return float(evaluate(variant, f"wording-{task}-{name}", CHOOSING)["p@1"])

    return max(plan.list_wordings(task), key=ask)


def evaluate(variant: Variant, name: str, held: EvalSpec) -> dict[str, Any]:
    """What the untrained model answers."""
    return load_or_compute(
        FOLDER / name,
        collect_facts(variant, held),
        lambda: ask_questions(variant.options, None, held),
        STORE / f"{name}.json",
    )


def ask_questions(options: TrainOptions, weights: str | None, held: EvalSpec) -> dict[str, Any]:
    """p@1, p@k and m@k with intervals over questions, and each question's own values, for paired differences."""
    start = time.perf_counter()
    answered = sample_answers(options, weights, held)
    primary = next(iter(answered[0].scores))
    names = ("p@1", f"p@{held.k}", f"m@{held.k}")
    found = summarize(answered, primary, held.k)
    each = [compute_question_metrics(question, primary, held.k) for question in answered]
    return {
        **{name: found[name].value for name in names},
        "intervals": {name: asdict(found[name]) for name in names},
        "each": {name: [round(values[name], 5) for values in each] for name in names},
        "ended": sum(question.ended for question in answered) / (len(answered) * held.k),
        "asked_seconds": round(time.perf_counter() - start, 1),
    }


def run(name: str, arm: Arm, options: TrainOptions, held: EvalSpec | None) -> dict[str, Any]:
    """One arm's result, from its small file or its folder; a run that was stopped goes on from its newest checkpoint.

    Args:
        arm: what its model is shown before the run.
        options: the run's.
        held: the questions that it is asked; None asks none.
    """
    folder, shown, console = FOLDER / name, split_arm(arm.objective)[0], Console(quiet=True)

    def make() -> dict[str, Any]:
        train_folder, start = folder / "run", time.perf_counter()
        final, again = train_folder / "final", RunFolder(train_folder).config.exists()
        if not final.exists():
            begun = options
            if shown is not None:
                before = folder / "sft"
                if not (before / "final").exists():
                    shutil.rmtree(before, ignore_errors=True)
                    finetune(shown.make_options(options), before, console)
                begun = start_from(options, before / "final")
            train(begun, train_folder, console, resume=again)
        return finish(options, final, folder, held, time.perf_counter() - start) | {"resumed": again}

    facts = collect_facts(Variant(options, warm_start=shown), held or HELD) | ({} if held else {"asked": False})
    return load_or_compute(folder, facts, make, STORE / f"{name}.json", resume=True)


def finish(options: TrainOptions, final: Path, folder: Path, held: EvalSpec | None, seconds: float) -> dict[str, Any]:
    """What a run came to; its weights, 1.6 GB with the optimiser's, are not kept."""
    curves = read_curves(folder / "run" / "metrics.jsonl")
    unmoved = hash_weights(final) == hash_initial_weights(options)
    answered = ask_questions(options, str(final), held) if held is not None else {}
    remove_weights(folder)
    return {
        "objective": options.objective,
        "seed": options.seed,
        "steps": options.steps,
        "rollouts": options.steps * plan.PROMPTS * plan.ROLLOUTS,
        "seconds": round(seconds, 1),
        "unmoved": unmoved,
        **curves,
        "curve": read_success(folder / "run" / "metrics.jsonl"),
        **answered,
    }


def read_success(metrics: Path) -> list[float]:
    """The share of right rollouts of each step, whatever else they are rewarded for."""
    entries = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [entry[SUCCESS] for entry in entries if SUCCESS in entry]


def remove_weights(folder: Path) -> None:
    """Leave of a run what is small."""
    for kept in (folder / "run" / "final", folder / "sft", *(folder / "run").glob("checkpoint-*")):
        shutil.rmtree(kept, ignore_errors=True)


def choose_rates(console: Console, workers: int) -> dict[str, float]:
    """The learning rate of each swept arm: the highest success of the last three steps, then the highest p̂."""
    tried = [(arm, rate) for arm in plan.ARMS if arm.name in plan.SWEPT for rate in plan.RATES]
    results = run_parallel("learning rates", [partial(try_rate, *one) for one in tried], console, workers)
    found = {(arm.name, rate): height(result) for (arm, rate), result in zip(tried, results, strict=True)}
    return {name: max(plan.RATES, key=lambda rate: found[name, rate]) for name in plan.SWEPT}


def try_rate(arm: Arm, rate: float) -> dict[str, Any]:
    """A short run at one learning rate."""
    options = make_options(plan.TASKS[0], arm, plan.RATE_SEED, rate, plan.RATE_STEPS)
    return run(f"rate-{short(arm.name)}-{rate:g}", arm, options, None)


def height(result: Mapping[str, Any]) -> tuple[float, float]:
    """How far a short run came."""
    likely = [value for value in result["p_hat"][-3:] if value is not None]
    return statistics.mean(result["curve"][-3:]), statistics.mean(likely) if likely else float("-inf")


Key = tuple[str, str, int, float]
"""Task, arm, seed, share of wrong golds."""


def run_all(console: Console, budget: RunBudget, workers: int) -> None:
    """What is missing, in the plan's order, so many runs at a time; no run is begun after so many minutes."""
    for task in plan.TASKS:
        choose_wording(task)  # asked here once: the runs read it
    rates = choose_rates(console, workers)
    jobs = [partial(run_arm, *job[:3], rates[job[1].rate_of], job[3], budget) for job in list_jobs()]
    run_parallel("arms", jobs, console, workers)


def read_kept() -> dict[Key, dict[str, Any]]:
    """The small results of all arms that were run."""
    found = {}
    for task, arm, seed, flipped in list_jobs():
        name = name_run(task, arm, seed, flipped)
        flat, whole = (read_result(f"{name}{end}") for end in ("-flat", ""))
        base = read_result(f"base-{task}-{short(arm.name)}")
        if whole is not None:
            found[task, arm.name, seed, flipped] = whole
        elif flat is not None and base is not None and not any(flat["curve"]):
            found[task, arm.name, seed, flipped] = {**base, **flat, "flat": True}
    return found


def read_result(name: str) -> dict[str, Any] | None:
    """One small result; None where there is none."""
    return read_small_result(STORE / f"{name}.json")


def name_run(task: str, arm: Arm, seed: int, flipped: float) -> str:
    """The folder of a run."""
    return f"{'wrong-' if flipped else ''}{task}-{short(arm.name)}-{seed}"


def name_cost(task: str, arm: Arm) -> str:
    """Of the result that holds what a step of an arm takes (`real_cost.py`)."""
    return f"cost-{task}-{short(arm.name)}"


def list_arms_of(task: str) -> list[Arm]:
    """The arms of a task, in the order of its table."""
    return [arm for arm in plan.ARMS if task == plan.TASKS[0] or arm.name in plan.SECOND_TASK_ARMS]


def run_arm(task: str, arm: Arm, seed: int, rate: float, flipped: float, budget: RunBudget) -> None:
    """One arm and seed. One that rewards alone teach is first given `FLAT_ROLLOUTS` rollouts to find a success.

    Args:
        budget: whether it is begun.
    """
    if budget.is_spent:
        return
    name = name_run(task, arm, seed, flipped)
    if arm.rewarded:
        flat = run(f"{name}-flat", arm, make_options(task, arm, seed, rate, plan.FLAT_STEPS, flipped), None)
        if not any(flat["curve"]):
            assert flat["unmoved"], "no success, and yet the weights moved"
            untrained = Variant(make_options(task, arm, 0, plan.RATES[0], 1), trained=False)
            evaluate(untrained, f"base-{task}-{short(arm.name)}", HELD)
            return
    run(name, arm, make_options(task, arm, seed, rate, plan.STEPS, flipped), HELD)


def short(text: str) -> str:
    """A name as part of a folder's."""
    return "".join(c for c in text.replace(", ", "-").replace(" ", "-") if c.isalnum() or c in ".-")


def list_jobs() -> Iterator[tuple[str, Arm, int, float]]:
    """Task, arm, seed and share of wrong golds, in the order in which they are run."""
    first, second = plan.TASKS
    of = {arm.name: arm for arm in plan.ARMS}
    seconds = [of[name] for name in plan.SECOND_TASK_ARMS]
    leading, further = plan.LEADING
    for seed in plan.SEEDS:
        yield from ((first, arm, seed, 0.0) for arm in plan.ARMS[:leading])
        yield from ((second, arm, seed, 0.0) for arm in seconds[:leading])
    for seed in plan.SEEDS:
        yield from ((first, arm, seed, 0.0) for arm in plan.ARMS[leading:further])
    for seed in plan.SEEDS:
        yield from ((first, of[name], seed, plan.FLIPPED) for name in plan.NOISY_ARMS)
    for seed in plan.SEEDS:
        yield from ((second, arm, seed, 0.0) for arm in seconds[leading:])
    for seed in plan.SEEDS:
        yield from ((first, arm, seed, 0.0) for arm in plan.ARMS[further:])


def tell_success(results: Collection[Mapping[str, Any]]) -> list[str]:
    """p@1, p@k and m@k of an arm as cells: the mean, the smallest and the largest seed."""
    return [percent_cell([result[name] for result in results]) for name in ("p@1", f"p@{HELD.k}", f"m@{HELD.k}")]


def table(found: Mapping[tuple[str, str, int, float], Mapping[str, Any]], task: str, flipped: float, best: str) -> str:
    """One line for each arm that was run: success, the paired difference from `best`, length, seconds of a step."""
    lines = []
    for arm in plan.ARMS:
        own = {seed: found[key] for seed in plan.SEEDS if (key := (task, arm.name, seed, flipped)) in found}
        if not own:
            continue
        rival = {seed: found[key] for seed in own if (key := (task, best, seed, flipped)) in found}
        cells = tell_success(own.values())
        shared = sorted(own.keys() & rival.keys())
        gap = paired_difference([own[s] for s in shared], [rival[s] for s in shared]) if shared else None
        told = "" if arm.name == best or gap is None else gap_cell(gap)
        train_success = percent_cell([statistics.mean(result["curve"][-5:]) for result in own.values()])
        stuck = all(result.get("flat") for result in own.values())
        rollouts = sum(result["rollouts"] for result in own.values())
        most = 100 * (1 - 0.05 ** (1 / rollouts))  # of independent rollouts: one-sided, without a success
        unmet = f"no success in {rollouts} rollouts (95 %: at most {most:.2f} %), weights unmoved"
        note = unmet if stuck else train_success
        cost = read_result(name_cost(task, arm))
        seconds = "" if cost is None else f"{cost['median']:.1f}"
        tokens = statistics.mean(statistics.mean(result["length"][-5:]) for result in own.values())
        counted = " | ".join((*cells, told, note, f"{tokens:.1f}", seconds))
        lines.append(f"| {arm.name} | {len(own)} | {counted} |")
    return "\n".join(lines) or "| none was run yet | | | | | | | | |"


TABLES = (("first", plan.TASKS[0], 0.0), ("second", plan.TASKS[1], 0.0), ("wrong", plan.TASKS[0], plan.FLIPPED))
TITLES = {"first": "one hop", "second": "pair", "wrong": "with wrong answers"}
BEST = "GARL .75"  # what every arm's difference is from


def list_settled(found: Mapping[Key, Mapping[str, Any]], task: str, flipped: float) -> list[str]:
    """Arms whose difference from `BEST` has a Student's interval over seeds without 0, each with it.

    Args:
        found: all that was run.
        task: of `plan.TASKS`.
        flipped: share of wrong golds.
    """
    told = []
    for arm in (one.name for one in plan.ARMS if one.name != BEST):
        shared = [s for s in plan.SEEDS if {(task, arm, s, flipped), (task, BEST, s, flipped)} <= found.keys()]
        if len(shared) > 1:
            gap = paired_t(*([found[task, name, seed, flipped] for seed in shared] for name in (arm, BEST)))
            if not gap.low <= 0.0 <= gap.high:
                told.append(f"{arm} {gap_cell(gap)}")
    return told


def read_shown(found: Mapping[Key, Mapping[str, Any]], task: str) -> str:
    """The share of right rollouts in the first step behind fine-tuning, seed by seed.

    Args:
        found: all that was run.
        task: of `plan.TASKS`.
    """
    keys = [(task, "SFT on answers, GRPO", seed, 0.0) for seed in plan.SEEDS]
    return ", ".join(f"{100 * found[key]['curve'][0]:.0f}" for key in keys if key in found) + " %"


def write_section(found: Mapping[Key, Mapping[str, Any]]) -> None:
    """The tables of what was run so far."""
    tables = {name: table(found, task, flipped, BEST) for name, task, flipped in TABLES}
    settled = {of: list_settled(found, task, flipped) for of, task, flipped in TABLES}
    rates = {name: read_rates(name) for name in plan.SWEPT}
    told = "; ".join(f"{name}: {text}" for name, text in rates.items() if text)
    said = {"rates": told, "wordings": read_wordings(), "questions": HELD.questions, "samples": HELD.k}
    told_settled = "; ".join(f"{TITLES[name]}: {', '.join(arms) or 'none'}" for name, arms in settled.items())
    told_shown = "; ".join(f"{task}: {read_shown(found, task)}" for task in plan.TASKS)
    whole = Template(TEXT.read_text()).substitute(tables, **said, settled=told_settled, shown=told_shown)
    insert(PAGE, "real model", whole)
    drawn = {
        name: [found[key] for seed in plan.SEEDS if (key := (plan.TASKS[1], name, seed, 0.0)) in found]
        for name in DRAWN
    }
    title = f"SmolLM2-135M-Instruct, city and country, {plan.PROMPTS} questions × {plan.ROLLOUTS} rollouts a step"
    plot_curves({name: results for name, results in drawn.items() if results}, PICTURE, title)


def tell_real_effects() -> dict[str, str]:
    """What the page of each method says of its runs here, by name: of the bare question alone, right golds."""
    found = read_kept()
    bare = [arm for arm in plan.ARMS if not arm.worded and split_arm(arm.objective)[0] is None]
    grpo = {task: tell_task(found, task, bare[0].name) for task in plan.TASKS}
    told: dict[str, str] = {}
    for arm in (one for one in bare if not one.rewarded):
        own = {task: tell_task(found, task, arm.name) for task in plan.TASKS}
        ran = [task for task in plan.TASKS if own[task] and grpo[task]]
        if not ran:
            continue
        of_arm, of_grpo = (", ".join(each[task] for task in ran) for each in (own, grpo))
        told.setdefault(
            arm.objective.partition("(")[0],
            f"p@1 {of_arm}. GRPO: p@1 {of_grpo} (`{arm.objective}`, SmolLM2-135M-Instruct, bare questions; "
            f"[a real model](../results.md#a-real-model))",
        )
    return told


def tell_task(found: Mapping[Key, Mapping[str, Any]], task: str, name: str) -> str:
    """The success of an arm on a task, with its seeds and what was asked; nothing where it was not run there.

    Args:
        found: all that was run.
        task: of `plan.TASKS`.
        name: of the arm.
    """
    own = [found[key]["p@1"] for seed in plan.SEEDS if (key := (task, name, seed, 0.0)) in found]
    few = {1: " (one seed)", 2: " (two seeds)"}.get(len(own), "")
    return f"{percent_cell(own)} {TOLD[task]}{few}" if own else ""


def read_wordings() -> str:
    """How often each wording had a right answer, the best first, task by task."""
    told = []
    for task in plan.TASKS:
        found = {name: read_result(f"wording-{task}-{name}") for name in plan.list_wordings(task)}
        rates = sorted(((result["p@1"], name) for name, result in found.items() if result), reverse=True)
        if rates:
            told.append(f"{task} {', '.join(f'{name} {100 * rate:.1f} %' for rate, name in rates)}")
    return "; ".join(told)


def read_rates(name: str, rates: Iterable[float] = plan.RATES) -> str:
    """What the sweep of an arm showed.

    Args:
        name: of the arm.
        rates: that were tried.
    """
    found = {rate: read_result(f"rate-{short(name)}-{rate:g}") for rate in sorted(rates)}
    return ", ".join(f"{rate:g} → {100 * height(result)[0]:.0f} %" for rate, result in found.items() if result)


def main() -> None:
    """Run what is missing in the plan's order, until all of it or `--minutes` are done; then write the section."""
    workers, budget = parse_workers(__doc__)
    if not budget.is_spent:
        run_all(Console(highlight=False), budget, workers)
    if found := read_kept():
        write_section(found)


if __name__ == "__main__":
    main()
