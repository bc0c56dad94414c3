"""What likelihoods of an answer at every turn cost beside the last one: `python experiments/answer_at_turns.py`.

Episodes of a search agent's shape with random ids, K turns in a group. Three ways to score them without a gradient, in
turns within one process, by its CPU time: the one likelihood after the last turn, the K + 1 of `answer_logp_at` in one
packed pass, and K + 1 passes. A ratio is the median over rounds. Heads tell answers alone in all three.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from rich.console import Console

from qredit.engine.answer_at_turns import score_answer_at_turns
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.share import share_prefix
from qredit.trl.bench.size import ModelShape

CLOSE, PAD, CPU = (3,), 0, torch.device("cpu")
SIZES: Mapping[str, int] = {
    "turns": 4, "prompt": 64, "thinking": 24, "answer": 8, "observation": 64, "rollouts": 8
}  # fmt: skip


def draw_episodes(asked: argparse.Namespace, shape: ModelShape) -> list[Trajectory]:
    """A group of episodes of K turns, each but the last with an observation."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, shape.vocabulary, (count,), generator=generator).tolist())

    prompt, gold, found = draw(asked.prompt), draw(asked.answer), []
    for _ in range(asked.rollouts):
        segments = [
            segment
            for turn in range(asked.turns)
            for segment in (
                Segment(draw(asked.thinking), Role.THINK, True, turn=turn),
                Segment(CLOSE, Role.CLOSE, True, turn=turn),
                Segment(draw(asked.answer), Role.ANSWER, True, turn=turn),
                Segment(draw(asked.observation), Role.OBSERVATION, False, turn=turn),
            )
        ]
        found.append(Trajectory(prompt, tuple(segments[:-1]), EndReason.ANSWER, golds=(gold,)))
    return found


def score_last(episodes: list[Trajectory], forward: Forward) -> None:
    """The likelihood after the last turn, as a step scores it."""
    rows = collate(episodes, ("answer",), PAD, 0, CPU)
    layout = forward.layout
    forward.scores(forward.model, rows, layout=lambda part: layout(part).only(part.batch.answer))


def score_at_each_turn_alone(episodes: list[Trajectory], forward: Forward, turns: int) -> None:
    """Each of the K + 1 in a pass of its own, over what stands before it."""
    for k in range(turns):
        closing = Segment(CLOSE, Role.CLOSE, False)
        heads = [(*(s for s in one.segments if s.turn < k), closing) for one in episodes]
        score_last([replace(one, segments=head) for one, head in zip(episodes, heads, strict=True)], forward)
    score_last(episodes, forward)


def cpu_seconds(work: Callable[[], object]) -> float:
    """What the process spent."""
    start = time.process_time()
    work()
    return time.process_time() - start


@dataclass(frozen=True)
class Ratios:
    """Medians over rounds: K + 1 likelihoods in one pass and in passes of their own, as multiples of one likelihood.

    Attributes:
        seconds: CPU seconds of the one.
    """

    packed: float
    alone: float
    seconds: float


def measure_answers_at_turns(shape: ModelShape, rounds: int, **sizes: int) -> Ratios:
    """What K + 1 likelihoods take.

    Args:
        shape: of the model, whose weights are random.
        rounds: measured ones, after one that warms up.
        **sizes: those of `SIZES`.
    """
    network = shape.model(4096).eval()
    assert share_prefix(network) is None
    forward = Forward(network, network, pack, lambda rows: [torch.arange(len(rows.batch.mask))], 1.0)
    episodes = draw_episodes(argparse.Namespace(**sizes), shape)
    ways = {
        "last": lambda: score_last(episodes, forward),
        "packed": lambda: score_answer_at_turns(episodes, CLOSE, PAD, forward, CPU),
        "alone": lambda: score_at_each_turn_alone(episodes, forward, sizes["turns"]),
    }
    found = [{name: cpu_seconds(work) for name, work in ways.items()} for _ in range(rounds + 1)][1:]
    packed, alone = (statistics.median(one[name] / one["last"] for one in found) for name in ("packed", "alone"))
    return Ratios(packed, alone, statistics.median(one["last"] for one in found))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, size in {**SIZES, "rounds": 21}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measure_answers_at_turns(ModelShape(), asked.rounds, **{name: getattr(asked, name) for name in SIZES})
    Console().print(
        f"K = {asked.turns} turns of {asked.thinking} + {asked.answer} tokens and {asked.observation} observed, prompt "
        f"of {asked.prompt}, {asked.rollouts} rollouts: K + 1 likelihoods in one pass {found.packed:.2f} times one "
        f"({found.seconds:.3f} s), in passes of their own {found.alone:.2f} times; {asked.rounds} rounds",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
