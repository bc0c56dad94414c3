"""How probable a gold answer is without a rationale, under the model that a run began with."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from qredit.rollouts.collate import Rows, Tail, plan_rows
from qredit.rollouts.trajectory import Role, Segment, Trajectory
from qredit.stats.masked import row_mean

BASE = "base_probability"
_Asked = tuple[tuple[int, ...], tuple[int, ...]]


def drop_rationales(trajectories: Sequence[Trajectory], close: Sequence[int]) -> list[Trajectory]:
    """One trajectory for each prompt and gold answer among these, whose thinking is closed at once.

    Args:
        close: the closing's ids.
    """
    closing = (Segment(tuple(close), Role.CLOSE, sampled=False),)
    return [
        replace(one, segments=closing, golds=(gold,), fields={}) for (_, gold), one in _distinct(trajectories).items()
    ]


def _distinct(trajectories: Sequence[Trajectory]) -> dict[_Asked, Trajectory]:
    return {(one.prompt, gold): one for one in reversed(trajectories) for gold in one.golds}


def base_probability(
    trajectories: Sequence[Trajectory], rows: Rows, logp: Float[Tensor, "R T"], tails: Sequence[Tail]
) -> Float[Tensor, " B"]:
    """(1/|y*|) Σ_t p(y*_t | x, no rationale) of the gold answer that each row ends in, or of its trajectory's first.

    Args:
        trajectories: sampled rollouts, in order.
        rows, logp: those of `drop_rationales(trajectories, …)`, in its order.
        tails: those of the rows that are asked for.
    """
    found = row_mean(logp.double().exp(), rows.batch.answer)
    place = {pair: number for number, pair in enumerate(_distinct(trajectories))}
    asked = [(row.trajectory.prompt, row.gold or row.trajectory.golds[0]) for row in plan_rows(trajectories, tails)]
    return found[[place[pair] for pair in asked]]
