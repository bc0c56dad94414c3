"""What a step on verl takes of the process that drives it: `python experiments/verl_driver.py`. Needs no verl.

The driver's part of a step is done on random rollouts of three sizes: read them, evaluate the objective, make columns.
Seconds are those of the processor. Bytes are those of the texts, scores and columns that pass through the driver. What
TransferQueue takes to carry them is not measured. The largest size is then scaled by its tokens to those of a cluster.
"""

import argparse
import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from qredit.core.objective import Objective
from qredit.engine.columns import make_columns
from qredit.engine.gathered_rows import gather_rollouts
from qredit.engine.rollout_bytes import to_bytes
from qredit.engine.scorer import Scorer
from qredit.engine.sequences import list_sequences
from qredit.objectives.parsing import parse
from qredit.rollouts.collate import choose_tails
from qredit.rollouts.trajectory import Trajectory, make_one_turn

Size = tuple[int, int, int]  # prompts, rollouts of each, tokens of a rollout
SIZES: tuple[Size, ...] = ((8, 8, 256), (16, 16, 1024), (32, 16, 4096))
CLUSTER: tuple[Size, ...] = ((256, 16, 4096), (1024, 32, 8192))
PARTS = ("read s", "evaluate s", "columns s", "rollouts MB", "scores MB", "columns MB")
PROMPT, ANSWER, VOCABULARY = 64, 8, 150_000


def draw(prompts: int, m: int, length: int) -> Iterator[Trajectory]:
    """Rollouts of random ids, each as long as it may be.

    Args:
        prompts: of a step.
        m: rollouts of each.
        length: tokens of a rollout.
    """
    generator = np.random.default_rng(0)
    for number in range(prompts * m):
        prompt, ids, gold = (generator.integers(0, VOCABULARY, size).tolist() for size in (PROMPT, length, ANSWER))
        logp = (-generator.random(length, dtype=np.float32)).tolist()
        end = length - ANSWER
        one = make_one_turn(prompt, ids, logp, end - 2, end, forced=True, ended=True)
        yield replace(one, golds=(tuple(gold),), group=number // m, reward=float(number % 2))


def measure(objective: Objective, size: Size) -> list[float]:
    """What each of PARTS takes of the driver, as `qredit.verl.trainer` does it."""
    tails, m = choose_tails(objective.needs), size[1]
    packed: dict[str, bytes] = {}
    lengths: dict[str, int] = {}
    for number, one in enumerate(draw(*size)):  # other processes hold them, as Python's numbers
        key = f"{number // m}_{number % m}"
        packed[key] = to_bytes(one, number // m)
        lengths.update((f"{key}_{place}", len(row.ids)) for place, row in enumerate(list_sequences(one, tails)))
    gc.collect()
    told = {name: {key: -torch.rand(length) for key, length in lengths.items()} for name in ("logp", "entropy")}
    scorer = Scorer(objective.needs, tails, 1.0, None, lambda: None, torch.device("cpu"), lambda: 0.0)
    clock = [time.process_time()]
    gathered = gather_rollouts(packed, list(lengths), tails, 0, first=0, seed=0)
    clock.append(time.process_time())
    scored = gathered.attach(told, scorer)
    credited = objective.evaluate(scored.batch)
    clock.append(time.process_time())
    columns = make_columns(scored.batch, credited, scored.places)
    clock.append(time.process_time())
    carried = [list(told["logp"].values()), list(told["entropy"].values())], list(columns.values())
    bytes_ = [sum(map(len, packed.values())), *(sum(one.nbytes for of in kind for one in of) for kind in carried)]
    return [end - start for start, end in pairwise(clock)] + [value / 1e6 for value in bytes_]


def count(size: Size) -> int:
    """Sampled tokens of a step."""
    return size[0] * size[1] * size[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objective", default="garl(q=0.75)")
    objective = parse(parser.parse_args().objective).at(0.0)
    torch.set_num_threads(1)
    measure(objective, SIZES[0])  # what only the first call takes
    table = Table("prompts x M x tokens", *PARTS, "microseconds a token", "bytes a token")
    for size in (*SIZES, *CLUSTER):
        factor = 1.0
        if size in SIZES:
            found = measure(objective, size)  # the last of them is what the others are scaled from
        else:
            factor = count(size) / count(SIZES[-1])
        numbers = [factor * value for value in found]
        rates = [1e6 * sum(numbers[:3]) / count(size), 1e6 * sum(numbers[3:]) / count(size)]
        name = " x ".join(map(str, size)) + (", scaled" if factor != 1.0 else "")
        table.add_row(name, *(f"{value:.3g}" for value in (*numbers, *rates)))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
