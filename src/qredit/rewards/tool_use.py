"""A reward for using tools that fades away: what makes a model try tools before it learns which calls pay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.core.schedule import check_range, cosine
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class tool_use:
    """More for every turn that called a tool, up to a limit, and less with every step.

        R = min(most, each · n) · (1 + cos(π s / steps)) / 2 in step s ≤ `steps`, and 0 after it

    n is the number of turns in which a call was run. It is paid whether the answer is right or not. In an evaluation,
    which is no step of a run, R = min(most, each · n).

    Args:
        steps: optimiser steps until nothing is paid.
        each: for a turn that called a tool.
        most: for an episode.
        counted: the count of a turn that says that it called one, as the environment names it.

    Raises:
        QreditError: an argument out of its range.

    Source: SPEAR (arXiv 2509.22601) and its official code, with 200 steps. Differences: a step is one of the optimiser,
    there a generation. There a message counts that holds a call that can be read, here a turn that ran one. Its variant
    that pays right answers 1 for any call is not here.
    """

    steps: int
    each: float = 0.1
    most: float = 1.0
    counted: str = "tool_calls"

    def __post_init__(self) -> None:
        check_count("tool_use: steps", self.steps, 1)
        check_range("tool_use: each", self.each, 1e-12, 1e12)
        check_range("tool_use: most", self.most, 1e-12, 1e12)
        if not isinstance(self.counted, str) or not self.counted:
            raise QreditError(f"tool_use: counted must be the name of a count, got {self.counted!r}")

    def factor(self, step: int) -> float:
        """What is left in a step, from near 1 down to 0 along half a cosine.

        Args:
            step: number of the optimiser step of the run, from 1.
        """
        return cosine(1.0, 0.0).at(step / self.steps)

    def score(self, turns: Sequence[Mapping[str, float]], step: int | None) -> float:
        """The reward of one episode.

        Args:
            turns: the counts of each of its turns.
            step: as `factor`; None in an evaluation.
        """
        used = sum(turn.get(self.counted, 0.0) > 0 for turn in turns)
        return min(self.most, self.each * used) * (1.0 if step is None else self.factor(step))

    def make_function(self) -> Callable[..., list[float]]:
        """The reward as a TRL reward function.

        It reads the column `turn_counts`, which episodes have, and the trainer's state.

        The function it returns raises QreditError where there are no episodes.
        """

        def reward(
            *,
            turn_counts: Sequence[Sequence[Mapping[str, float]]] | None = None,
            trainer_state: Any = None,
            **columns: Any,
        ) -> list[float]:
            if turn_counts is None:
                raise QreditError("reward 'tool_use' counts turns of episodes, and these rollouts have one turn")
            step = None if trainer_state is None else trainer_state.global_step + 1  # it says how many are done
            return [self.score(turns, step) for turns in turn_counts]

        reward.__name__ = type(self).__name__
        reward.reads_gold = False  # type: ignore[attr-defined]
        return reward
