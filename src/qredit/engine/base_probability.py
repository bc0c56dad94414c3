"""How probable a right answer is without a rationale, under the model that a run began with."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from qredit.core.right_answers import mean_of_best
from qredit.rollouts.collate import Rows, Tail, plan_rows
from qredit.rollouts.trajectory import Role, Segment, Trajectory

BASE = "base_probability"
_Ids = tuple[int, ...]


def drop_rationales(trajectories: Sequence[Trajectory], close: Sequence[int]) -> list[Trajectory]:
    """One trajectory for each prompt and its right answers among these, whose thinking is closed at once.

    Args:
        close: the closing's ids.
    """
    closing = (Segment(tuple(close), Role.CLOSE, sampled=False),)
    return [replace(one, segments=closing, fields={}) for one in _distinct(trajectories).values()]


def _distinct(trajectories: Sequence[Trajectory]) -> dict[tuple[_Ids, tuple[_Ids, ...]], Trajectory]:
    return {(one.prompt, one.golds): one for one in reversed(trajectories)}


def base_probability(
    trajectories: Sequence[Trajectory], rows: Rows, logp: Float[Tensor, "R T"], tails: Sequence[Tail]
) -> Float[Tensor, " B"]:
    """(1/|y*|) Σ_t p(y*_t | x, no rationale) of the answer to each row's prompt; the best one's, if several are right.

    Args:
        trajectories: sampled rollouts, in order.
        rows, logp: those of `drop_rationales(trajectories, …)`, in its order.
        tails: those of the rows that are asked for.
    """
    found = mean_of_best(logp.double().exp(), rows.batch.answer, rows.batch.alias)
    place = {asked: number for number, asked in enumerate(_distinct(trajectories))}
    return found[[place[row.trajectory.prompt, row.trajectory.golds] for row in plan_rows(trajectories, tails)]]
