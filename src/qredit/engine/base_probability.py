"""How probable a gold answer is without a rationale, under the model that a run began with."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from qredit.rollouts.collate import Rows, Sampled
from qredit.rollouts.trajectory import Rollout
from qredit.stats.masked import row_mean

BASE = "base_probability"


def without_rationale(sampled: Sequence[Sampled], close: Sequence[int]) -> list[Sampled]:
    """One rollout for each prompt and gold answer among these, whose thinking is closed at once.

    Args:
        close: the closing's ids.
    """
    count = len(close)
    empty = Rollout(tuple(close), (0.0,) * count, 0, count, forced=True, dropped_end=False, ended=False)
    return [replace(one, rollout=empty, fields={}) for one in _distinct(sampled).values()]


def _distinct(sampled: Sequence[Sampled]) -> dict[tuple[tuple[int, ...], tuple[int, ...]], Sampled]:
    return {(one.prompt, one.gold): one for one in reversed(sampled)}


def base_probability(
    sampled: Sequence[Sampled], rows: Rows, logp: Float[Tensor, "R T"], tails: int
) -> Float[Tensor, " B"]:
    """(1/|y*|) Σ_t p(y*_t | x, no rationale) of each rollout's gold answer, once for each of its `tails` rows.

    Args:
        rows, logp: those of `without_rationale(sampled, …)`, in its order.
    """
    found = row_mean(logp.double().exp(), rows.batch.answer)
    place = {pair: number for number, pair in enumerate(_distinct(sampled))}
    return found[[place[one.prompt, one.gold] for one in sampled for _ in range(tails)]]
