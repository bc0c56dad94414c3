"""What a rationale adds to the mean probability of the gold answer's tokens, as the reward of a rollout."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Scope, Source
from qredit.core.right_answers import mean_of_best
from qredit.core.schedule import check_range
from qredit.stats.groups import Groups
from qredit.stats.masked import apply_mask
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class answer_probability_gain(Source):
    """c_i = (1 - format) · max(0, p̄_i - base) + format · r_i, on the rows that end in a sampled answer.

        p̄_i = (1/|y*|) Σ_t p(y*_t | x, z_i, y*_<t),   base the same mean without a rationale

    Each gold token's probability, averaged: the likelihood is the product of the same numbers. Of several right answers
    the best mean counts. p̄_i is that of the rollout's other row, which ends in the gold answer; such rows have no
    coefficient and their tokens do not count in the denominator. r_i is the batch's reward, meant for the form of the
    completion. Rollouts without a gold answer or without a reward are left out. p̄ is that of the policy that sampled,
    once for a generation.

    Args:
        format: weight of r_i, in [0, 1].

    Raises:
        QreditError: a batch that does not say which rows belong to one rollout.

    Source: arXiv 2506.18254, official code. Difference: p̄ and base run over the seam and the end of the answer too.
    """

    format: float = 0.1
    needs = frozenset({"logp", "answer_logp", "base_probability", "reward"})
    scope = Scope.GENERATION

    def __post_init__(self) -> None:
        check_range("format", self.format, 0.0, 1.0)

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        batch.require("answer_logp", str(self))  # it is what the gold answer is appended for
        likely, known = _mean_answer_probability(batch, str(self))
        base = batch.require("base_probability", str(self)).double()
        reward = batch.require("reward", str(self)).double()
        keep = known & ~batch.has_answer & ~reward.isnan()
        value = (1 - self.format) * (likely - base).clamp(min=0) + self.format * reward
        counted = (~batch.has_answer).double()
        return Coefficient(torch.where(keep, value, 0.0)[:, None], keep[:, None], counted[:, None])


def _mean_answer_probability(batch: RolloutBatch, wanted_by: str) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """The mean probability of the gold answer in each row's rollout, and the rows whose rollout has one."""
    if batch.rollout is None:
        raise QreditError(f"{wanted_by} needs the batch field 'rollout', which says what row has the same rationale")
    probability = apply_mask(batch.require("logp", wanted_by).double(), batch.answer).exp()
    rollouts = Groups.of(batch.rollout)
    mean = rollouts.mean(mean_of_best(probability, batch.answer, batch.alias), batch.has_answer)
    return mean, rollouts.count(batch.has_answer) > 0
