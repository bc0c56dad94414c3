"""Rollouts whose sampler says nothing of its draws: their densities come from a forward pass by the weights it had."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows, Tail, plan_rows
from qredit.rollouts.trajectory import Trajectory


def is_untold(drawn: Trajectory) -> bool:
    """Whether nothing is known of the density of some of its sampled tokens."""
    return any(segment.sampled and segment.ids and segment.logp is None for segment in drawn.segments)


def fill_untold_densities(
    trajectories: Sequence[Trajectory], tails: Sequence[Tail], rows: Rows, forward: Forward
) -> Rows:
    """The rows with `sampler_logp` under the policy of this moment where the sampler told none.

    It is then the ratio of two policies, and says nothing of the distribution that the tokens were drawn from.

    Args:
        trajectories: those that the rows are of.
        tails: what the rows end in.
        rows: as they were collated.
        forward: how the policy runs.
    """
    batch = rows.batch
    assert batch.sampler_logp is not None
    untold = torch.tensor([is_untold(spec.trajectory) for spec in plan_rows(trajectories, tails)])
    # all rows: a process without such rows makes the same passes as the others
    told = forward.scores(forward.model, rows)["logp"].to(batch.sampler_logp.dtype)
    chosen = untold.to(batch.mask.device)[:, None] & batch.sampled
    return replace(rows, batch=replace(batch, sampler_logp=torch.where(chosen, told, batch.sampler_logp)))
