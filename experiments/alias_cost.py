"""What a GARL step costs with several right answers beside one with a single one: `python experiments/alias_cost.py`.

The same trainer, prompt and rollouts, with one right answer and with four, in turns within one process. A ratio is the
median over rounds of (seconds with four) / (seconds with one). A step is sampling, which aliases do not change, and the
update: scores, coefficients, gradient. Run it while nothing else runs.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch
from rich.console import Console

from qredit.runs.library_logging import silence_libraries
from qredit.trl.bench.arms import FixedRollouts, QreditArm, make_rollouts
from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import ANSWER, ModelShape, Size

SAMPLE_EVERY = 5  # rounds: sampling takes longer than an update, and aliases do not change it


def draw_aliases(count: int, shape: ModelShape) -> tuple[tuple[int, ...], ...]:
    """Random answers as long as the gold one; they share its end and nothing else."""
    generator = torch.Generator().manual_seed(1)
    return tuple(
        (*torch.randint(4, shape.vocabulary, (ANSWER - 1,), generator=generator).tolist(), 1) for _ in range(count)
    )


def seconds_of_update(arm: QreditArm, rollouts: FixedRollouts) -> float:
    """One forward and backward pass over the group."""
    arm.trainer.model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    arm.update(rollouts)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="512/64/16", help="PROMPT/COMPLETION/ROLLOUTS")
    parser.add_argument("--answers", type=int, default=4, help="right answers beside one")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--objective", default="garl(q=0.75)")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    silence_libraries()
    torch.set_num_threads(asked.threads)
    size, shape = Size.parse(asked.size), ModelShape()
    arm = QreditArm(size, shape, Setup(), asked.objective, shared=True)
    words = arm.trainer._tokenizer.convert_tokens_to_ids
    one = make_rollouts(size, shape, 0, words("<think>"), words("</think>"))
    several = replace(one, aliases=draw_aliases(asked.answers - 1, shape))
    pairs, sampling = [], []
    for number in range(asked.rounds + 1):
        order = (one, several) if number % 2 else (several, one)
        spent = {id(rollouts): seconds_of_update(arm, rollouts) for rollouts in order}
        if number:  # the first round warms up
            pairs.append((spent[id(one)], spent[id(several)]))
        if number % SAMPLE_EVERY == 0:
            start = time.perf_counter()
            arm.sample()
            sampling.append(time.perf_counter() - start)
    sample = statistics.median(sampling)
    update = statistics.median(b / a for a, b in pairs)
    step = statistics.median((sample + b) / (sample + a) for a, b in pairs)
    Console().print(
        f"{asked.objective} at {asked.size}, answers of {ANSWER} tokens, {asked.answers} right ones beside one: update "
        f"{update:.2f} times ({statistics.median(a for a, _ in pairs):.3f} s with one), step {step:.2f} times "
        f"({sample:.3f} s of sampling), {asked.rounds} rounds",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
