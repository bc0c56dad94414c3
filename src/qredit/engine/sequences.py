"""The sequences that a model runs over for a rollout."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from qredit.rollouts.collate import Tail, plan_rows
from qredit.rollouts.trajectory import Role, Segment, Trajectory


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
