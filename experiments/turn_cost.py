"""What a step of GARL costs against the number of turns: `python experiments/turn_cost.py`, in docs/performance.md.

Episodes of K turns with equal tokens per turn, in an environment that always has something to say, by models with
random weights: one of the pocket search model's shape and a wider one. They end no turn by themselves, but for the
chance that random weights give. Every round takes a step of each K, forwards and backwards in turns, and times are CPU
seconds of the process. A ratio is the median over rounds of a part's time against that of K = 1. The part "likelihood"
is a forward pass over the step's rows without a gradient. The update has a forward pass of its own, from which GARL's
coefficients come. Last, the K + 1 likelihoods of igpo and a2tgpo against one, by answer_at_turns.py.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import torch
from answer_at_turns import measure_answers_at_turns
from datasets import Dataset
from page import insert, machine_line
from rich.console import Console
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from qredit.environments import Environment, Step
from qredit.runs.library_logging import silence_libraries
from qredit.trl import QreditConfig, QreditTrainer
from qredit.trl.bench.arms import spell_ids
from qredit.trl.bench.size import ModelShape

PAGE, TEXT = Path("docs/performance.md"), Path(__file__).with_name("turn_cost.md.in")
SHAPES = {
    "0.3 million": ModelShape(vocabulary=351, hidden=96, inner=192, layers=3, heads=4, key_heads=2, head=24, tied=True),
    "6.9 million": ModelShape(),
}
TURNS = (1, 2, 4, 8)
PROMPT, TURN, ANSWER, OBSERVED, M = 64, 32, 8, 32, 8
PARTS = ("sample", "likelihood", "update", "step")


class Talk(Environment):
    """Says as many words to every action, and is never over."""

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        return Step()

    def step(self, action: str) -> Step:
        return Step(spell_ids(range(10, 10 + OBSERVED)), reward=float(len(action) % 2))


class Likelihood(TrainerCallback):  # type: ignore[misc]
    """CPU seconds of a forward pass over the rows of the step, without a gradient."""

    def __init__(self) -> None:
        self.trainer: QreditTrainer | None = None
        self.seconds = 0.0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        assert self.trainer is not None
        assert self.trainer._generation is not None
        start = time.process_time()
        with torch.no_grad():
            for micro in self.trainer._generation.microbatches:
                self.trainer.scorer.score(self.trainer.model, micro.rows)
        self.seconds = time.process_time() - start


def make_trainer(shape: ModelShape, turns: int, folder: str) -> tuple[QreditTrainer, Likelihood]:
    """A trainer of GARL whose episodes have so many turns."""
    torch.manual_seed(0)
    prompts = [spell_ids(range(10 + seed, 10 + seed + PROMPT)) for seed in range(4)]
    meter = Likelihood()
    trainer = QreditTrainer(
        shape.model(4096),
        "garl(q=0.75)",
        QreditConfig(
            output_dir=folder,
            max_steps=1,
            per_device_train_batch_size=M,
            num_generations=M,
            max_completion_length=TURN,
            answer_budget=ANSWER,
            max_turns=turns,
            observation_budget=OBSERVED + 2,
            learning_rate=1e-12,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        Dataset.from_dict({"prompt": prompts, "answer": [spell_ids(range(10, 10 + ANSWER - 1))] * len(prompts)}),
        processing_class=shape.tokenizer(),
        environment=Talk,
        callbacks=[meter],
    )
    trainer.remove_callback(PrinterCallback)
    meter.trainer = trainer
    return trainer, meter


def time_step(trainer: QreditTrainer, meter: Likelihood) -> dict[str, float]:
    """CPU seconds of a step, part by part, and the tokens of an episode."""
    trainer.train()
    said = next(entry for entry in reversed(trainer.state.log_history) if "time/update" in entry)
    assert said["time/score"] == 0, "rows were scored apart, so an update is no whole one"
    sample, update = said["time/sample"], said["time/update"]
    return {
        "sample": sample,
        "likelihood": meter.seconds,
        "update": update,
        "step": sample + update,
        "turns": said["episode/turns"],
    }


def measure(shape: ModelShape, rounds: int) -> list[dict[int, dict[str, float]]]:
    """Of each round but the first, what a step of each K took."""
    with tempfile.TemporaryDirectory() as folder:
        made = {turns: make_trainer(shape, turns, folder) for turns in TURNS}
        found = []
        for number in range(rounds + 1):
            order = TURNS if number % 2 else TURNS[::-1]
            found.append({turns: time_step(*made[turns]) for turns in order})
    return found[1:]


def write_rows(name: str, found: Sequence[Mapping[int, Mapping[str, float]]], answers: Mapping[int, float]) -> str:
    """A line for each K: seconds of its parts, and how many times those of K = 1 they are."""
    lines = []
    for turns in TURNS:
        cells = []
        for part in PARTS:
            ratio = statistics.median(one[turns][part] / one[TURNS[0]][part] for one in found)
            cells.append(f"{statistics.median(one[turns][part] for one in found):.2f} ({ratio:.1f})")
        told = found[0][turns]["turns"]
        assert told == turns, f"episodes had {told} turns, not {turns}"
        lines.append(f"| {name} | {turns} | {' | '.join(cells)} | {answers[turns]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--note", default="", help="a sentence about the machine, such as that it was busy")
    asked = parser.parse_args()
    silence_libraries()
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # the trainer's own clock: others may use the machine, and it must not show
    console, rows = Console(highlight=False), []
    for name, shape in SHAPES.items():
        found = measure(shape, asked.rounds)
        sizes = {"prompt": PROMPT, "thinking": TURN - ANSWER, "answer": ANSWER, "observation": OBSERVED, "rollouts": M}
        answers = {k: measure_answers_at_turns(shape, asked.rounds, turns=k, **sizes).packed for k in TURNS}
        rows.append(write_rows(name, found, answers))
        console.print(rows[-1], soft_wrap=True)
    told = {"turn": TURN, "observed": OBSERVED, "prompt": PROMPT, "m": M, "rounds": asked.rounds}
    note = f" {asked.note}" if asked.note else ""
    whole = Template(TEXT.read_text()).substitute(told, rows="\n".join(rows), machine=machine_line(), note=note)
    insert(PAGE, "turns", whole)


if __name__ == "__main__":
    main()
