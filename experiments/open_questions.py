"""Two questions that the paper leaves open, asked of the pocket model: part of `make results`.

Does zeroing the pathwise term stop GARL's collapse at a warm start? Does a schedule of q beat every fixed q?
"""

import argparse
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import torch
from page import insert, kept, list_other_golds, machine_line, paired_t, write_jsonl
from rich.console import Console

from qredit import pocket, tasks
from qredit.core.tsallis import escort
from qredit.runs.compare import steps_to
from qredit.runs.experiment import (
    EvalSpec,
    Variant,
    evaluate_model,
    hash_initial_weights,
    load_or_compute,
    read_curves,
    run_variant,
)
from qredit.runs.library_logging import silence_libraries
from qredit.runs.options import POCKET_BUDGET, TrainOptions
from qredit.runs.parallel import run_parallel
from qredit.runs.train import train

FOLDER, PAGE = Path("runs/results/open"), Path("docs/results.md")
TEXT = Path(__file__).with_name("open_questions.md.in")
SEEDS = (0, 1, 2, 3, 4)
HELD = EvalSpec(questions=128)
FIXED = tuple(f"garl(q={q})" for q in (0.0, 0.25, 0.5, 0.75, 1.0))
SCHEDULES = ("sft_then_rlvr()", "garl(q=linear(1.0, 0.0))")
RATES = (3e-4, 1e-4, 1e-3)  # in order of preference among equals
SWEEP_SEED, SWEEP_STEPS, CHOOSING = 100, 40, EvalSpec(questions=64, split="validation")
STEPS = 60
FLIPPED = 0.3
COLD = TrainOptions(steps=STEPS, save_every=0, cpu=True)
WARM = replace(COLD, style="warm", eval_every=5, eval_questions=64, eval_k=4)
COLLAPSING = ("garl(q=0.25)", "garl(q=0.25, pathwise=False)", "paft(q=0.75)", "grpo()")
COLLAPSE_RATE, COLLAPSE_STEPS = 3e-3, 30


@dataclass(frozen=True)
class Question:
    """One run of an experiment: how it is trained, on which questions it is then asked.

    Attributes:
        kind: begins the names of folders.
        train: the options of the run.
        asked: the options whose task's held-out questions it is evaluated on.
        held: which of them.
    """

    kind: str
    train: TrainOptions
    asked: TrainOptions
    held: EvalSpec = HELD

    @property
    def name(self) -> str:
        return f"{self.kind}-{plain(self.train.objective)}-{self.train.learning_rate:g}-{self.train.seed}"


def plain(objective: str) -> str:
    """An objective's text as part of a folder's name."""
    return "".join(c for c in objective.replace("=", "").replace(", ", "-") if c.isalnum() or c in ".-")


def answer(question: Question, folder: Path) -> dict[str, Any]:
    """p@1 on held-out questions, the success of the training rollouts, the validations; from the folder if kept."""
    torch.set_num_threads(1)

    def make() -> dict[str, Any]:
        run = folder / question.name / "run"
        final = train(question.train, run, Console(quiet=True)).final
        found = evaluate_model(question.asked, str(final), question.held)
        lines = (run / "validation.jsonl").read_text().splitlines() if question.train.eval_every else []
        return {
            **{name: value["value"] for name, value in found.items()},
            **read_curves(run / "metrics.jsonl"),
            "validation": [json.loads(line)["p@1"] for line in lines],
        }

    trained = {**question.train.changed(), "model": Path(question.train.model).name}  # wherever the package lies
    told: dict[str, Any] = {"train": trained, "asked": question.asked.changed(), "held": asdict(question.held)}
    told |= {"weights": hash_initial_weights(question.asked), "threads": 1}
    own = folder / question.name
    return load_or_compute(
        own, told, make, None if question.train.guard else kept(own)
    )  # a guard's decisions lie in the folder


def noisy_data(folder: Path, flipped: float = FLIPPED, seed: int = 0) -> Path:
    """The cold training questions with a share of the gold answers replaced by another country of the same context."""
    rng = random.Random(seed)
    rows = []
    for example in tasks.get("pocket-hotpot").load(None, "train", "cold"):
        wrong = rng.choice(list_other_golds(str(example.prompt), example.gold))
        gold = wrong if rng.random() < flipped else example.gold
        rows.append({"id": example.id, "prompt": example.prompt, "answer": gold})
    write_jsonl(folder / "train.jsonl", rows)
    return folder


def noisy(options: TrainOptions, data: Path) -> TrainOptions:
    """The same run on the questions with wrong golds."""
    total, answer_tokens = POCKET_BUDGET
    return replace(
        options,
        task="jsonl",
        data=str(data),
        model=str(pocket.get_model_path("hotpot")),
        max_completion_length=total,
        answer_budget=answer_tokens,
    )


def sweep(objective: str) -> list[Question]:
    """One short run at each learning rate, evaluated on validation questions."""
    options = replace(COLD, objective=objective, seed=SWEEP_SEED, steps=SWEEP_STEPS)
    return [Question("sweep", replace(options, lr=rate), COLD, CHOOSING) for rate in RATES]


def chosen_rates(swept: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """The learning rate with the highest p@1, the first of `RATES` among equals."""
    best = {
        objective: max(range(len(RATES)), key=lambda n: (found[n]["p@1"], -n)) for objective, found in swept.items()
    }
    return {objective: RATES[number] for objective, number in best.items()}


def schedule_questions(rates: Mapping[str, float], data: Path) -> list[Question]:
    """Every objective and seed, on clean and on partly wrong golds."""
    asked = []
    for seed in SEEDS:
        for objective in (*SCHEDULES, *reversed(FIXED)):
            clean = replace(COLD, objective=objective, lr=rates[objective], seed=seed)
            asked += [Question("clean", clean, COLD), Question("noisy", noisy(clean, data), COLD)]
    return asked


def collapse_questions() -> list[Question]:
    """Warm runs at a learning rate that is too high for the base model."""
    return [
        Question("warm", replace(WARM, objective=objective, lr=COLLAPSE_RATE, seed=seed, steps=COLLAPSE_STEPS), WARM)
        for seed in SEEDS
        for objective in COLLAPSING
    ]


def run(console: Console, fixed: Mapping[str, float]) -> dict[str, Any]:
    """Every run, from its folder where it is kept.

    Args:
        fixed: learning rates of the objectives with a fixed q, as chosen by their own sweep.
    """
    swept = {objective: sweep(objective) for objective in SCHEDULES}
    tried = _answered("sweep of the schedules", [q for qs in swept.values() for q in qs], console)
    rates = {**fixed, **chosen_rates({name: [tried[q.name] for q in qs] for name, qs in swept.items()})}
    asked = [*schedule_questions(rates, noisy_data(FOLDER / "data")), *collapse_questions()]
    base = run_variant(Variant(WARM, trained=False), FOLDER / "base-warm", HELD, Console(quiet=True))
    return {"rates": rates, "asked": asked, "found": _answered("open questions", asked, console), "base": base["p@1"]}


def _answered(title: str, questions: Sequence[Question], console: Console) -> dict[str, dict[str, Any]]:
    found = run_parallel(title, [partial(answer, question, FOLDER) for question in questions], console)
    return {question.name: result for question, result in zip(questions, found, strict=True)}


def section(found: Mapping[str, Any]) -> str:
    """The section of docs/results.md, from its text and the numbers."""
    by = {
        (q.kind, q.train.objective, q.train.learning_rate, q.train.seed): found["found"][q.name] for q in found["asked"]
    }
    wrong = torch.tensor([1 - FLIPPED, FLIPPED / 2, FLIPPED / 2], dtype=torch.float64)
    commitments = (0.25, 0.5, 0.75, 1.0)
    return Template(TEXT.read_text()).safe_substitute(
        machine=machine_line(),
        steps=STEPS,
        questions=HELD.questions,
        flipped=f"{100 * FLIPPED:.0f}",
        rates=", ".join(f"{found['rates'][name]:g} for `{name}`" for name in SCHEDULES),
        schedules="\n".join(_schedule_row(name, found["rates"], by) for name in (*FIXED, *SCHEDULES)),
        best_clean=_difference("clean", found["rates"], by),
        best_noisy=_difference("noisy", found["rates"], by),
        escorts=", ".join(f"{100 * float(escort(wrong, q)[0]):.0f} %" for q in commitments),
        escort_q=", ".join(f"{q:g}" for q in commitments),
        base=f"{100 * found['base']:.0f}",
        collapse_steps=COLLAPSE_STEPS,
        collapse_rate=f"{COLLAPSE_RATE:g}",
        collapse="\n".join(_collapse_row(name, by, found["base"]) for name in COLLAPSING),
    )


Runs = Mapping[tuple[str, str, float, int], Mapping[str, Any]]


def _of_seeds(kind: str, objective: str, rate: float, by: Runs) -> list[Mapping[str, Any]]:
    return [by[kind, objective, rate, seed] for seed in SEEDS]


def _spread(values: Sequence[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} [{100 * min(values):.1f}, {100 * max(values):.1f}]"


def _schedule_row(name: str, rates: Mapping[str, float], by: Runs) -> str:
    cells = []
    for kind in ("clean", "noisy"):
        runs = _of_seeds(kind, name, rates[name], by)
        steps = [step for step in (steps_to(one["curve"], 0.5) for one in runs) if step is not None]
        cells.append(_spread([one["p@1"] for one in runs]))
        cells.append(f"{min(steps)}–{max(steps)} ({len(steps)} of {len(runs)})" if steps else "never")
    return f"| `{name}` | {' | '.join(cells)} |"


def _difference(kind: str, rates: Mapping[str, float], by: Runs) -> str:
    """The better schedule less the best fixed q, by mean p@1, with a paired 95 % interval."""
    runs = {name: _of_seeds(kind, name, rates[name], by) for name in (*FIXED, *SCHEDULES)}
    success = {name: statistics.mean(one["p@1"] for one in own) for name, own in runs.items()}
    schedule, fixed = (max(names, key=success.__getitem__) for names in (SCHEDULES, FIXED))
    gap = paired_t(runs[schedule], runs[fixed])
    return f"`{schedule}` less `{fixed}` {100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def _collapse_row(name: str, by: Runs, base: float) -> str:
    runs = [one["validation"] for one in _of_seeds("warm", name, COLLAPSE_RATE, by)]
    peaks, last = [max(base, *values) for values in runs], [values[-1] for values in runs]
    fallen = sum(end < peak / 2 for peak, end in zip(peaks, last, strict=True))
    return f"| `{name}` | {fallen} of {len(runs)} | {_spread(peaks)} | {_spread(last)} |"


def main() -> None:
    """Run what is missing and write the section of docs/results.md; after experiments/results.py."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    fixed = json.loads((FOLDER.parent / "rates.json").read_text())
    insert(PAGE, "open questions", section(run(Console(highlight=False), fixed)))


if __name__ == "__main__":
    main()
