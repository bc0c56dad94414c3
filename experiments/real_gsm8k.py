"""Part D of `make results-real GSM8K=FOLDER`: SmolLM2 on bare GSM8K, some steps.

The plan, written before the first run. The official questions are put to SmolLM2-135M-Instruct bare: p̂ of the gold
number is near 1e-9, and a model of this size solves few of them however they are asked. Each arm has `STEPS` steps of
4 questions × 8 rollouts of at most `COMPLETION` tokens, one seed, learning rate 3e-5, which the sweep of
`real_model.py` chose for two of its three arms. Two readings of what is sampled, by the task's own scorers: strict,
the answer is that number and nothing else; lenient, the last number of the answer is that number. An arm whose
rollouts have no strict success has no reward gradient.

Expected: GRPO without a success. GARL and log-prob learn that an answer is a number, so that the gold answers become
likelier and strict answers are given; how many of them are right is then what guessing, or a few sums in the head,
give: some per cent. If lenient success of the trained models is no higher than that of the untrained one, they
learned the form alone, and this page says so.
"""

import shutil
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
from page import insert, machine_line, read_small_result
from real_model import FOLDER, PAGE, STORE, remove_weights
from rich.console import Console
from run_budget import parse_gsm8k, run_jobs

from qredit.evaluation.metrics import summarize
from qredit.runs.experiment import EvalSpec, Variant, collect_facts, load_or_compute, read_curves, sample_answers
from qredit.runs.options import TrainOptions
from qredit.runs.smollm2 import SMOLLM2
from qredit.runs.train import train

TEXT = Path(__file__).with_name("real_gsm8k.md.in")
UNTRAINED = "untrained"
ARMS = (UNTRAINED, "grpo()", "garl(q=0.75)", "logprob()")
STEPS, SEED, RATE = 12, 0, 3e-5
COMPLETION, ANSWER = 80, 16
HELD = EvalSpec(questions=48, k=4)
READINGS = {"strict": "numeric", "lenient": "last_number"}
DATA = FOLDER / "data" / "gsm8k"


def copy_questions(source: str) -> None:
    """The official files below the runs' folder, so that what is kept names no path of a machine.

    Args:
        source: folder with train.jsonl and test.jsonl.
    """
    DATA.mkdir(parents=True, exist_ok=True)
    for name in ("train.jsonl", "test.jsonl"):
        shutil.copyfile(Path(source) / name, DATA / name)


def make_options(objective: str) -> TrainOptions:
    """The run of an arm."""
    return TrainOptions(
        task="gsm8k",
        data=str(DATA),
        model=SMOLLM2,
        objective=objective,
        reward=f"{READINGS['strict']}, 0 * {READINGS['lenient']}",
        m=8,
        prompts_per_step=4,
        max_completion_length=COMPLETION,
        answer_budget=ANSWER,
        steps=STEPS,
        lr=RATE,
        seed=SEED,
        cpu=True,
        save_every=4,
        training={"save_total_limit": 1},
    )


def run_arm(objective: str, train_anew: bool) -> dict[str, Any] | None:
    """One run, and what its model says to held-out questions; of the untrained model, that alone.

    Args:
        objective: of `ARMS`.
        train_anew: whether a missing run is made.

    Returns:
        None where the run is not there and none is to be made.
    """
    folder = FOLDER / f"gsm8k-{plain(objective)}"
    store = STORE / f"{folder.name}.json"
    if not train_anew:
        return read_small_result(store)
    trained = objective != UNTRAINED
    options = make_options(objective if trained else "grpo()")

    def make() -> dict[str, Any]:
        final = train_arm(options, folder) if trained else None
        answered = sample_answers(options, None if final is None else str(final), HELD)
        found = {name: summarize(answered, scorer, HELD.k) for name, scorer in READINGS.items()}
        curves = read_curves(folder / "run" / "metrics.jsonl") if trained else {}
        remove_weights(folder)
        return {
            **{name: asdict(values["p@1"]) for name, values in found.items()},
            "said": [question.predictions[0] for question in answered[:8]],
            "ended": sum(question.ended for question in answered) / (len(answered) * HELD.k),
            **curves,
        }

    facts = collect_facts(Variant(options, trained), HELD)
    return load_or_compute(folder, facts, make, store, resume=True)


def train_arm(options: TrainOptions, folder: Path) -> Path:
    """The final weights of a run, which goes on where it was stopped."""
    run = folder / "run"
    return train(options, run, Console(quiet=True), resume=run.exists()).final


def write_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for the untrained model and each arm that was run."""
    lines = []
    for objective in (name for name in ARMS if name in found):
        one = found[objective]
        cells = [percent(one[name]) for name in READINGS] + [f"{100 * one['ended']:.0f}"]
        likely = [value for value in one.get("p_hat", []) if value is not None]
        cells.append(f"{likely[0]:.1f} → {statistics.mean(likely[-3:]):.1f}" if likely else "")
        cells.append(f"{100 * statistics.mean(one['curve'][-3:]):.1f}" if "curve" in one else "")
        name = objective if objective == UNTRAINED else f"`{objective}`"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(interval: Mapping[str, float]) -> str:
    """A share with its interval."""
    return f"{100 * interval['value']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def main() -> None:
    """Run what is missing and write the section."""
    data, budget = parse_gsm8k(__doc__)
    if data is not None:
        copy_questions(data)
    found = run_jobs(
        ARMS,
        lambda objective: run_arm(objective, not budget.is_spent),
        lambda objective, result: f"{objective}: strict {100 * result['strict']['value']:.1f} %",
        Console(highlight=False),
    )
    if found:
        said = {"steps": STEPS, "questions": HELD.questions, "samples": HELD.k, "completion": COMPLETION}
        text = Template(TEXT.read_text()).substitute(
            said, answer=ANSWER, machine=machine_line(), rows=write_table(found)
        )
        insert(PAGE, "real gsm8k", text)


if __name__ == "__main__":
    main()
