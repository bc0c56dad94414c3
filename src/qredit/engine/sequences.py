"""A rollout on its way from an agent loop to the driver: as rows of token ids, and as text that tells how they came."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qredit.rollouts.collate import Tail, plan_rows
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory


@dataclass(frozen=True)
class TokenRow:
    """One sequence that a model runs over: a prompt and what follows it.

    Attributes:
        ids: behind the prompt.
        sampled: which of them were drawn.
        logp: of each under the engine that drew it; 0 where none is known.
    """

    ids: tuple[int, ...]
    sampled: tuple[bool, ...] = field(default=())
    logp: tuple[float, ...] = field(default=())


def list_sequences(trajectory: Trajectory, tails: Sequence[Tail]) -> list[TokenRow]:
    """The sequences of a rollout, in the order of its rows: one for each tail, and for each right answer of a row."""
    found = []
    for row in plan_rows([trajectory], tails):
        head = row.trajectory.head if row.golds else row.trajectory.segments
        ends = [[Segment(gold, Role.GOLD, sampled=False)] for gold in row.golds] or [[]]
        found += [_join([*head, *end]) for end in ends]
    return found


def _join(segments: Sequence[Segment]) -> TokenRow:
    return TokenRow(
        tuple(token for one in segments for token in one.ids),
        tuple(one.sampled for one in segments for _ in one.ids),
        tuple(value for one in segments for value in one.logp or (0.0,) * len(one.ids)),
    )


def to_text(trajectory: Trajectory, index: int) -> str:
    """A rollout as JSON, without its row of the data.

    Args:
        trajectory: with golds and reward.
        index: of its prompt in the data.
    """
    told: dict[str, Any] = {
        "index": index,
        "prompt": trajectory.prompt,
        "segments": [(str(one.role), one.sampled, one.ids, one.logp) for one in trajectory.segments],
        "end": str(trajectory.end),
        "dropped_ends": trajectory.dropped_ends,
        "golds": trajectory.golds,
        "reward": trajectory.reward,  # Python's JSON knows NaN
    }
    return json.dumps(told)


def from_text(text: str, group: int) -> Trajectory:
    """The rollout that `to_text` wrote, as one of that group."""
    told = json.loads(text)
    return Trajectory(
        prompt=tuple(told["prompt"]),
        segments=tuple(
            Segment(tuple(ids), Role(role), sampled, None if logp is None else tuple(logp))
            for role, sampled, ids, logp in told["segments"]
        ),
        end=EndReason(told["end"]),
        dropped_ends=told["dropped_ends"],
        group=group,
        golds=tuple(map(tuple, told["golds"])),
        reward=told["reward"],
    )


def index_of(text: str) -> int:
    """The index of the prompt that `to_text` was given."""
    return int(json.loads(text)["index"])
