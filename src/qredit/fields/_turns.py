"""The turns of an episode, as texts that makers read and as places that their numbers are put on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qredit.rollouts.trajectory import Role, Trajectory


@dataclass(frozen=True)
class TurnText:
    """What was said in a turn, and what the environment said to that; untrusted text.

    Attributes:
        said: thinking, closing and action.
        observed: "" where nothing followed.
    """

    said: str
    observed: str


def read_turns(one: Trajectory, tokenizer: Any) -> list[TurnText]:
    """Each turn of a rollout as text, special tokens left out."""

    def read(turn: int, observed: bool) -> str:
        ids = [
            id
            for segment in one.segments
            if segment.turn == turn and (segment.role == Role.OBSERVATION) == observed
            for id in segment.ids
        ]
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    return [TurnText(read(turn, False), read(turn, True)) for turn in range(_count_turns(one))]


def place_on_turns(one: Trajectory, values: Sequence[float]) -> list[float]:
    """To each token of a rollout the number of its turn."""
    return [values[segment.turn] for segment in one.segments for _ in segment.ids]


def _count_turns(one: Trajectory) -> int:
    return max((segment.turn for segment in one.segments), default=-1) + 1
