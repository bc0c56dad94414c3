"""Is the advice of `qredit probe` worth more than a constant choice? Part of `make results`.

Every setting of probe_settings.py is trained with every constant objective and with what the probe advises, five seeds
each. Runs are kept in runs/results/probe, so that it goes on where it was stopped: about three hours from scratch on
two cores. `--only NAME` runs one setting and writes nothing.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import torch
from open_questions import Question, answer
from page import compute_t_interval, insert, kept, machine_line
from probe_settings import (
    CONSTANT,
    LEARNING_RATE,
    PROBED,
    PROMPTS,
    QUESTIONS,
    ROLLOUTS,
    SEEDS,
    SETTINGS,
    STEPS,
    Setting,
)
from rich.console import Console

from qredit import pocket, tasks
from qredit.probe import load, measure, predict, recommend
from qredit.runs.compare import steps_to
from qredit.runs.experiment import EvalSpec, hash_initial_weights, load_or_compute
from qredit.runs.library_logging import silence_libraries
from qredit.runs.options import POCKET_BUDGET, TrainOptions
from qredit.runs.parallel import run_parallel
from qredit.stats.interval import Interval

FOLDER, PAGE = Path("runs/results/probe"), Path("docs/probe.md")
TEXT = Path(__file__).with_name("probe_check.md.in")
HELD = EvalSpec(questions=QUESTIONS)
HALF = 0.5
SIGNED = "{:+.1f}".format
BETWEEN = " lies in "  # in a sentence of the context, before the place


def asked_of(setting: Setting) -> TrainOptions:
    """The setting as it is evaluated: on right golds."""
    return TrainOptions(
        task=setting.task,
        style=setting.style,  # type: ignore[arg-type]
        coldness=setting.coldness,
        lr=LEARNING_RATE,
        steps=STEPS,
        m=ROLLOUTS,
        prompts_per_step=PROMPTS,
        save_every=0,
        cpu=True,
    )


def trained_on(setting: Setting, objective: str, seed: int) -> TrainOptions:
    """The setting as it is trained; m stays as it is, whatever is advised: rollouts are equal."""
    given = {**asdict(asked_of(setting)), "objective": objective, "seed": seed}
    if setting.flipped:
        total, answer_tokens = POCKET_BUDGET
        model = str(pocket.get_model_path(pocket.get_model_name(setting.task, setting.coldness)))
        given |= {"task": "jsonl", "data": str(wrong_golds(setting)), "model": model, "coldness": None}
        given |= {"max_completion_length": total, "answer_budget": answer_tokens}
    return TrainOptions(**given)


def slug(setting: Setting) -> str:
    """The setting as part of a folder's name."""
    return setting.name.replace(",", "").replace(" ", "-")


def wrong_golds(setting: Setting, seed: int = 0) -> Path:
    """The training questions with a share of the golds replaced by another place of the same context."""
    folder = FOLDER / "data" / slug(setting)
    path = folder / "train.jsonl"
    if not path.exists():
        rng, rows = random.Random(seed), []
        for example in tasks.get(setting.task).load(None, "train", setting.style):  # type: ignore[arg-type]
            lines = [line for line in str(example.prompt).split("\n") if BETWEEN in line]
            others = [place for line in lines if (place := line.rsplit(" ", 1)[1].rstrip(".")) != example.answer]
            wrong = rng.choice(others)
            gold = wrong if rng.random() < setting.flipped else example.answer
            rows.append(json.dumps({"id": example.id, "prompt": example.prompt, "answer": gold}))
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".writing")
        aside.write_text("\n".join(rows) + "\n")
        aside.rename(path)
    return folder


def probed(setting: Setting, seed: int) -> dict[str, Any]:
    """What the probe measures on the questions that would be trained on, wrong golds among them; from its folder."""
    torch.set_num_threads(1)
    options = trained_on(setting, "grpo()", seed)

    def make() -> dict[str, Any]:
        measured = measure(load(options, PROBED), ROLLOUTS, seed)
        return {
            "log_w": measured.log_w.tolist(),
            "right": measured.right.tolist(),
            "forced": float(measured.forced.double().mean()),
        }

    told = {"setting": asdict(setting), "probed": PROBED, "m": ROLLOUTS, "seed": seed}
    folder = FOLDER / f"probe-{slug(setting)}-{seed}"
    return load_or_compute(folder, told | {"weights": hash_initial_weights(asked_of(setting))}, make, kept(folder))


def advised(found: Mapping[str, Any]) -> str | None:
    """The objective that the probe advises; recomputed, so that kept measurements serve changed thresholds."""
    predicted = predict(torch.tensor(found["log_w"], dtype=torch.float64), torch.tensor(found["right"]))
    return recommend(predicted, found["forced"]).objective


def question(setting: Setting, objective: str, seed: int) -> Question:
    """One run."""
    return Question(slug(setting), trained_on(setting, objective, seed), asked_of(setting), HELD)


def run(console: Console, settings: Sequence[Setting], seeds: Sequence[int]) -> dict[str, Any]:
    """Every constant and the advice, in every setting with every seed: {setting: {objective: [p@1]}}.

    "steps" beside them holds, likewise, after how many steps half of the training rollouts were right (`STEPS`: never).
    """
    cells = [(setting, seed) for seed in seeds for setting in settings]
    for setting in settings:
        if setting.flipped:
            wrong_golds(setting)
    looked = run_parallel("probe", [partial(probed, *cell) for cell in cells], console)
    advice = {cell: advised(found) for cell, found in zip(cells, looked, strict=True)}
    wanted = {
        (setting, seed, name): question(setting, name, seed)
        for setting, seed in cells
        for name in dict.fromkeys((*CONSTANT, advice[setting, seed] or CONSTANT[0]))
    }
    jobs = [partial(answer, one, FOLDER) for one in wanted.values()]
    found = dict(zip(wanted, run_parallel("probe check", jobs, console), strict=True))

    def arms(setting: Setting, read: Callable[[Mapping[str, Any]], float]) -> dict[str, list[float]]:
        # where no q helps any would do, and the first is as good as none
        advised = [read(found[setting, seed, advice[setting, seed] or CONSTANT[0]]) for seed in seeds]
        return {"advised": advised} | {name: [read(found[setting, seed, name]) for seed in seeds] for name in CONSTANT}

    return {
        setting.name: {
            "advice": [advice[setting, seed] for seed in seeds],
            **arms(setting, lambda one: float(one["p@1"])),
            "steps": arms(setting, lambda one: float(steps_to(one["curve"], HALF) or STEPS)),
        }
        for setting in settings
    }


def regrets(found: Mapping[str, Any], name: str, among: Sequence[str] = CONSTANT) -> list[float]:
    """Per seed, the mean over settings of what was lost against the best of `among` in that setting, points.

    The best is that on average over the seeds: the best of each seed would profit from its own luck.
    """

    def best(row: Mapping[str, Any]) -> str:
        return max(among, key=lambda one: statistics.mean(row[one]))

    lost = [[100 * (row[best(row)][n] - row[name][n]) for n in range(len(row[name]))] for row in found.values()]
    return [statistics.mean(of_seed) for of_seed in zip(*lost, strict=True)]


def mean_steps(found: Mapping[str, Any], name: str) -> list[float]:
    """Per seed, the mean over settings of the steps until half of the training rollouts were right."""
    return [statistics.mean(of_seed) for of_seed in zip(*(row["steps"][name] for row in found.values()), strict=True)]


def paired(left: Sequence[float], right: Sequence[float]) -> Interval:
    """Mean of left less right, seed by seed, with a 95 % interval (Student's t)."""
    return compute_t_interval([a - b for a, b in zip(left, right, strict=True)])


def told() -> dict[str, Any]:
    """What pages tell of every run in these settings."""
    return {
        "machine": machine_line(),
        "steps": STEPS,
        "rate": f"{LEARNING_RATE:g}",
        "prompts": PROMPTS,
        "rollouts": ROLLOUTS,
        "questions": QUESTIONS,
        "seeds": f"{SEEDS[0]} to {SEEDS[-1]}",
    }


def section(found: Mapping[str, Any]) -> str:
    """What stands between the markers of docs/probe.md."""
    own = regrets(found, "advised")
    versus = {name: paired(regrets(found, name), own) for name in CONSTANT}
    better = [name for name, more in versus.items() if more.low > 0]
    lower = [name for name, more in versus.items() if more.value > 0]
    return Template(TEXT.read_text()).substitute(
        told(),
        count=len(found),
        probed=PROBED,
        header=" | ".join(f"`{name}`" for name in CONSTANT),
        rule="---|" * len(CONSTANT),
        settings="\n".join(_setting_row(name, row) for name, row in found.items()),
        own=f"{statistics.mean(own):.1f}",
        own_steps=f"{statistics.mean(mean_steps(found, 'advised')):.1f}",
        regrets="\n".join(_regret_row(name, found, versus[name]) for name in CONSTANT),
        lower=f"{len(lower)} of {len(CONSTANT)}",
        better=f"{len(better)} of {len(CONSTANT)}",
    )


def _setting_row(name: str, row: Mapping[str, Any]) -> str:
    advice = ", ".join(f"`{one}`" if one else "no q helps" for one in dict.fromkeys(row["advice"]))
    cells = [f"{100 * statistics.mean(row[objective]):.1f}" for objective in ("advised", *CONSTANT)]
    return f"| {name} | {advice} | {' | '.join(cells)} |"


def _regret_row(name: str, found: Mapping[str, Any], more: Interval) -> str:
    steps, lost = mean_steps(found, name), statistics.mean(regrets(found, name))
    later = paired(steps, mean_steps(found, "advised"))
    return f"| `{name}` | {lost:.1f} | {more.format(SIGNED)} | {statistics.mean(steps):.1f} | {later.format(SIGNED)} |"


def main() -> None:
    """Run what is missing and write the section of docs/probe.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[setting.name for setting in SETTINGS], help="one setting; no page")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="with --only, how many of the seeds")
    given = parser.parse_args()
    silence_libraries()
    console = Console(highlight=False)
    if given.only:
        chosen = [setting for setting in SETTINGS if setting.name == given.only]
        console.print_json(data=run(console, chosen, SEEDS[: given.seeds]))
    else:
        insert(PAGE, "probe check", section(run(console, SETTINGS, SEEDS)))


if __name__ == "__main__":
    main()
