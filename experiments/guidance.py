"""Is a guided run worth more than a fixed q, and does the guard save a run that collapses? Part of `make results`.

`q: auto` in every setting of probe_settings.py, beside every fixed q and what the paper advises, whose runs are those
of probe_check.py; and the collapsing runs of open_questions.py once more, under each action of the guard.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from open_questions import COLLAPSE_RATE, COLLAPSE_STEPS, HELD, SEEDS, WARM, Question, answer
from page import compute_t_interval, insert
from probe_check import FOLDER as SETTINGS_FOLDER
from probe_check import HALF, SIGNED, paired, question, regrets, told, wrong_golds
from probe_settings import SEEDS as SETTING_SEEDS
from probe_settings import SETTINGS, Setting
from rich.console import Console

from qredit.runs.compare import steps_to
from qredit.runs.library_logging import silence_libraries
from qredit.runs.parallel import run_parallel

FOLDER, PAGE = Path("runs/results/guidance"), Path("docs/results.md")
TEXT = Path(__file__).with_name("guidance.md.in")
AUTO = "garl(q=auto())"
FIXED = tuple(f"garl(q={q})" for q in (0.0, 0.25, 0.5, 0.75, 1.0))
COLD_ADVICE, WARM_ADVICE = "garl(q=0.75)", "garl(q=0.25)"
GUARDS = (None, "stop", "roll_back", "paft")
GUARDED, SAVED_EVERY = "garl(q=0.25)", 2


def paper_advice(setting: Setting) -> str:
    """What the paper advises: a large q for a cold start, a low one for a warm start."""
    return WARM_ADVICE if setting.style == "warm" else COLD_ADVICE


def guarded(guard: str | None, seed: int) -> Question:
    """A warm run at a learning rate that is too high for it; without validation, so that its last weights count."""
    options = replace(WARM, objective=GUARDED, lr=COLLAPSE_RATE, seed=seed, steps=COLLAPSE_STEPS)
    options = replace(options, eval_every=0, save_every=SAVED_EVERY)
    return Question(f"guard-{guard or 'none'}", replace(options, guard=guard), WARM)  # type: ignore[arg-type]


def run(console: Console) -> dict[str, Any]:
    """Every run, from its folder where it is kept."""
    for setting in SETTINGS:
        if setting.flipped:
            wrong_golds(setting)
    wanted = [(setting, seed, name) for seed in SETTING_SEEDS for setting in SETTINGS for name in (AUTO, *FIXED)]
    jobs = [partial(answer, question(*_asked(key)), SETTINGS_FOLDER) for key in wanted]
    found = dict(zip(wanted, run_parallel("guidance", jobs, console), strict=True))
    told = [guarded(guard, seed) for guard in GUARDS for seed in SEEDS]
    saved = run_parallel("guard", [partial(answer, one, FOLDER) for one in told], console)
    return {"settings": found, "guard": {(q.train.guard, q.train.seed): r for q, r in zip(told, saved, strict=True)}}


def _asked(key: tuple[Setting, int, str]) -> tuple[Setting, str, int]:
    setting, seed, name = key
    return setting, name, seed


def by_setting(found: Mapping[tuple[Setting, int, str], Any]) -> dict[str, dict[str, list[float]]]:
    """p@1 of every arm, seed by seed; `paper` is that of the fixed q which the paper advises there."""
    table = {}
    for setting in SETTINGS:
        arms = {name: [found[setting, seed, name]["p@1"] for seed in SETTING_SEEDS] for name in (AUTO, *FIXED)}
        table[setting.name] = arms | {"paper": arms[paper_advice(setting)]}
    return table


def section(found: Mapping[str, Any]) -> str:
    """What stands between the markers of docs/results.md."""
    table = by_setting(found["settings"])
    own = regrets(table, AUTO, (AUTO, *FIXED))
    versus = {name: regrets(table, name, (AUTO, *FIXED)) for name in (*FIXED, "paper")}
    return Template(TEXT.read_text()).substitute(
        told(),
        header=" | ".join(f"`{name}`" for name in FIXED),
        rule="---|" * len(FIXED),
        settings="\n".join(_row(name, arms) for name, arms in table.items()),
        own=f"{statistics.mean(own):.1f}",
        regrets="\n".join(_regret(name, lost, own) for name, lost in versus.items()),
        when="\n".join(_when(setting, found["settings"]) for setting in SETTINGS),
        collapse_steps=COLLAPSE_STEPS,
        collapse_rate=f"{COLLAPSE_RATE:g}",
        guarded=GUARDED,
        saved_every=SAVED_EVERY,
        held=HELD.questions,
        guards="\n".join(_guard_row(guard, found["guard"]) for guard in GUARDS),
    )


def _row(name: str, arms: Mapping[str, Sequence[float]]) -> str:
    cells = [f"{100 * statistics.mean(arms[arm]):.1f}" for arm in (AUTO, "paper", *FIXED)]
    return f"| {name} | {' | '.join(cells)} |"


def _regret(name: str, lost: Sequence[float], own: Sequence[float]) -> str:
    more = paired(lost, own)
    shown = "the paper's advice" if name == "paper" else f"`{name}`"
    return f"| {shown} | {statistics.mean(lost):.1f} | {more.format(SIGNED)} |"


def _when(setting: Setting, found: Mapping[tuple[Setting, int, str], Any]) -> str:
    cells = []
    for name in (AUTO, *FIXED):
        steps = [steps_to(found[setting, seed, name]["curve"], HALF) for seed in SETTING_SEEDS]
        known = [step for step in steps if step is not None]
        cells.append(f"{statistics.mean(known):.0f} ({len(known)})" if known else "never")
    return f"| {setting.name} | {' | '.join(cells)} |"


def _guard_row(guard: str | None, found: Mapping[tuple[str | None, int], Any]) -> str:
    values = [100 * found[guard, seed]["p@1"] for seed in SEEDS]
    ended = compute_t_interval(values)
    acted = [_decisions(guarded(guard, seed)) for seed in SEEDS]
    first = [decisions[0]["step"] for decisions in acted if decisions]
    when = f"{min(first)}–{max(first)} ({len(first)} of {len(SEEDS)})" if first else ""
    return f"| {guard or 'none'} | {ended.value:.1f} [{max(ended.low, 0):.1f}, {ended.high:.1f}] | {when} |"


def _decisions(asked: Question) -> list[dict[str, Any]]:
    path = FOLDER / asked.name / "run" / "decisions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Run what is missing and write the section of docs/results.md."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    insert(PAGE, "guidance", section(run(Console(highlight=False))))


if __name__ == "__main__":
    main()
