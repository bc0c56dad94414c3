"""Small RolloutBatches for the tests."""

from collections.abc import Callable

import torch
from torch import Tensor

from qredit import RolloutBatch


def over_scored_rows(credit: Callable[[RolloutBatch], Tensor]) -> Callable[[RolloutBatch], Tensor]:
    """A formula over the rows that were scored, as if there were no others; those get 0."""

    def of_all(batch):
        scored = ~batch.reward.isnan()
        found = torch.zeros(batch.mask.shape, dtype=torch.float64)
        found[scored] = credit(batch.select(scored)).double()
        return found

    return of_all


def likelihood_batch(log_w, group=None, *, rationale=2, answer=2, forced=1, seed=0, **fields) -> RolloutBatch:
    """Rows of `rationale` sampled tokens, `forced` closing tokens, `answer` gold tokens; answer_logp = log_w."""
    log_w = torch.as_tensor(log_w, dtype=torch.float64)
    rows, width = len(log_w), rationale + forced + answer
    column = torch.arange(width).expand(rows, width)
    return RolloutBatch(
        mask=torch.ones(rows, width, dtype=torch.bool),
        rationale=column < rationale,
        close=(column >= rationale) & (column < rationale + forced),
        answer=column >= rationale + forced,
        sampled=column < rationale,
        group=torch.zeros(rows, dtype=torch.long) if group is None else torch.as_tensor(group),
        answer_logp=log_w,
        seed=seed,
        **fields,
    )


def reward_batch(reward, group=None, *, lengths=None, **fields) -> RolloutBatch:
    """Rows of sampled tokens with a reward; `lengths` makes them ragged."""
    reward = torch.as_tensor(reward, dtype=torch.float64)
    rows = len(reward)
    lengths = torch.as_tensor([3] * rows if lengths is None else lengths)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return RolloutBatch(
        mask=mask,
        rationale=mask,
        answer=torch.zeros_like(mask),
        group=torch.zeros(rows, dtype=torch.long) if group is None else torch.as_tensor(group),
        reward=reward,
        **fields,
    )
