"""Densities of rationales that come from two prompts: each is needed behind the plain prompt and behind the hinted one.

What the sampler said of its own draws is one of the two where it is exact. A forward pass without gradient says the
rest: behind the hint, and behind the plain prompt where the step does not do it anyway.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.engine.hinted import replace_prompts
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows, Tail, plan_rows
from qredit.rollouts.trajectory import Trajectory


def score_behind_hint(
    trajectories: Sequence[Trajectory], tails: Sequence[Tail], rows: Rows, forward: Forward, pad: int, exact: bool
) -> Float[Tensor, "B T"]:
    """Log-probability of each completion token behind the prompt that shows the gold answer, in nats.

    Args:
        trajectories: those that the rows are of, with the ids of their hinted prompts.
        tails: what the rows end in.
        rows: behind the plain prompts.
        forward: how the policy runs.
        pad: the id that fills prompts up.
        exact: take the sampler's own log-probabilities for rows that it drew behind the hint; those of their gold
            answers are then 0, for it did not draw them.
    """
    asked = [spec.trajectory for spec in plan_rows(trajectories, tails)]
    told = torch.zeros_like(rows.batch.mask, dtype=torch.float32)
    if exact and rows.batch.sampler_logp is not None:
        told += rows.batch.sampler_logp
    rest = [number for number, one in enumerate(asked) if not (exact and one.proposal)]
    if rest:
        shown = replace_prompts(rows.select(torch.tensor(rest)), [asked[number].hinted for number in rest], pad)
        told[rest] = forward.scores(forward.model, shown)["logp"].float()
    return told


def score_behind_plain_prompt(rows: Rows, forward: Forward) -> Rows:
    """The rows with `sampler_logp` as if all had been drawn behind the plain prompt, by the weights of this moment.

    What the sampler said of rows drawn behind the hint is their density there.
    """
    batch = rows.batch
    assert batch.proposal is not None
    assert batch.sampler_logp is not None
    drawn = batch.proposal.nonzero()[:, 0]
    told = batch.sampler_logp.clone()
    told[drawn] = forward.scores(forward.model, rows.select(drawn))["logp"].to(told.dtype)
    return replace(rows, batch=replace(batch, sampler_logp=torch.where(batch.sampled, told, 0.0)))
