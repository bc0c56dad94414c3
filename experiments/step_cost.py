"""What a training step costs beside what one would use instead: `make bench`.

Times GARL, our GRPO and TRL's own GRPOTrainer on the same model, questions and sizes, in turns within one process, and
prints the ratios: the median over rounds of (median step of one) / (median step of the other). The learning rate is so
small that the model stays what it is, so that every round samples alike. Rewards differ within groups, so that GRPO has
a gradient to compute.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from qredit import pocket
from qredit.runs.library_logging import silence_libraries
from qredit.runs.load import load_examples, load_model, load_tokenizer
from qredit.runs.options import TrainOptions
from qredit.runs.train import make_token_format
from qredit.trl import QreditConfig, QreditTrainer

QUESTIONS, M, THINKING, ANSWER = 8, 16, 32, 8
STEPS = 6


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimiser step, sampling included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def spread_reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Something that differs within a group."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def sizes() -> dict[str, Any]:
    """What both configurations share."""
    return {
        "output_dir": "runs/bench",
        "max_steps": STEPS,
        "per_device_train_batch_size": QUESTIONS * M,
        "num_generations": M,
        "learning_rate": 1e-12,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
    }


def trainers(path: str, also: Sequence[str] = ()) -> dict[str, tuple[Any, Clock]]:
    """The three trainers and those of further objectives, each with its clock, all starting from the same weights."""
    options = TrainOptions()
    tokenizer = load_tokenizer(path)
    examples = load_examples(options, "train", 512)
    format = make_token_format(options, tokenizer).format
    plain = {"prompt": [e.prompt for e in examples], "answer": [e.answer for e in examples]}
    rendered = plain | {"prompt": [format.render(e.prompt, tokenizer) for e in examples]}
    made: dict[str, tuple[Any, Clock]] = {}
    for objective in ("garl(q=0.75)", "grpo()", *also):
        clock = Clock()
        args = QreditConfig(**sizes(), max_completion_length=THINKING + ANSWER, answer_budget=ANSWER)
        made[objective] = (
            QreditTrainer(
                load_model(path),
                objective,
                args,
                Dataset.from_dict(plain),
                reward_funcs=spread_reward,
                processing_class=tokenizer,
                callbacks=[clock],
            ),
            clock,
        )
    clock = Clock()
    args = GRPOConfig(**sizes(), max_completion_length=THINKING + ANSWER)
    data = Dataset.from_dict(rendered)
    made["TRL GRPOTrainer"] = (
        GRPOTrainer(load_model(path), spread_reward, args, data, processing_class=tokenizer, callbacks=[clock]),
        clock,
    )
    for trainer, _ in made.values():
        trainer.remove_callback(PrinterCallback)
    return made


def measured(rounds: int, also: Sequence[str] = ()) -> dict[str, list[float]]:
    """Median step time of each trainer in each round; the first step of a round is left out."""
    made = trainers(str(pocket.get_model_path("hotpot")), also)
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in range(rounds + 1):
        order = list(made) if number % 2 else list(reversed(made))
        for name in order:
            trainer, clock = made[name]
            clock.seconds.clear()
            trainer.train()
            if number:  # the round that warms up is not counted
                times[name].append(statistics.median(clock.seconds[1:]))
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--also", action="append", default=[], help="a further objective, such as one with a proposal")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    silence_libraries()
    times = measured(chosen.rounds, chosen.also)
    table = Table("step", "seconds, median [min, max]", "GARL / this, median of rounds")
    for name, values in times.items():
        ratios = [garl / other for garl, other in zip(times["garl(q=0.75)"], values, strict=True)]
        shown = f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"
        table.add_row(name, shown, f"{statistics.median(ratios):.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{QUESTIONS} questions × {M} rollouts, {chosen.rounds} rounds of {STEPS} steps in turns, "
        f"torch {torch.__version__}, {chosen.threads} threads"
    )


if __name__ == "__main__":
    main()
