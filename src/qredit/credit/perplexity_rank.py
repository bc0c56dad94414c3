"""A rollout's place in its group by how well a fixed model predicts the gold answer after its rationale."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Scope, Source
from qredit.core.field_names import LOGP_PREFIX, REFERENCE
from qredit.core.right_answers import mean_of_best
from qredit.core.schedule import check_range
from qredit.stats.groups import Groups
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class perplexity_rank(Source):
    """c_i = form · r_i + rank · R_i + efficiency · E_i, on the rows that end in a sampled answer.

        s_i = -(1/|y*|) Σ_t log p_T(y*_t | x, z_i, y*_<t) / max(1, 1 + log10 |z_i|),   T the teacher, |z_i| in tokens
        R_i = (V - places before i in order of s) / V,   E_i = share of the other V-1 with |z_j| > |z_i| and s_j > s_i

    Only rollouts of the right form, r_i > 0, take part: V is their number in the group, and the others have R = E = 0.
    exp(s_i) is a perplexity, softened for long rationales. Rollouts of equal s share the better place. E is 0 where
    V < 2. The gold answer stands in the rollout's other row. Such rows have no coefficient and do not count in the
    denominator. Rollouts without a gold answer or without a reward are left out.

    Args:
        form, rank, efficiency: weights of the three parts, at least 0.
        teacher: who predicts the answer, by the name that the run knows it by.

    Raises:
        QreditError: a batch that does not say which rows belong to one rollout.

    Source: arXiv 2505.16022 (NOVER), official code. Difference: ties, which its sort gives to the earlier rollout.
    """

    form: float = 1.0
    rank: float = 1.0
    efficiency: float = 1.0
    teacher: str = REFERENCE
    scope = Scope.GENERATION

    @property
    def needs(self) -> frozenset[str]:
        """The teacher's log-probabilities, both tails, and what the reward function gives."""
        return frozenset({f"{LOGP_PREFIX}{self.teacher}", "answer_logp", "reward"})

    def __post_init__(self) -> None:
        for name in ("form", "rank", "efficiency"):
            check_range(name, getattr(self, name), 0.0, math.inf)

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        batch.require("answer_logp", str(self))  # it is what the gold answer is appended for
        surprise, known = self._surprise(batch)
        reward = batch.require("reward", str(self)).double()
        keep = known & ~batch.has_answer & ~reward.isnan()
        ranked = keep & (reward > 0) & surprise.isfinite()
        length = batch.rationale.sum(1).double()
        place, longer_and_worse, others = _compare(batch.groups, surprise, length, ranked)
        rank = torch.where(ranked, 1 - place / (others + 1), 0.0)
        efficiency = torch.where(ranked, longer_and_worse / others.clamp(min=1), 0.0)
        value = self.form * reward + self.rank * rank + self.efficiency * efficiency
        return Coefficient(torch.where(keep, value, 0.0)[:, None], keep[:, None], (~batch.has_answer).double()[:, None])

    def _surprise(self, batch: RolloutBatch) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
        """s of each row's rollout, and the rows whose rollout has a gold answer."""
        if batch.rollout is None:
            raise QreditError(f"{self} needs the batch field 'rollout', which says what row has the same rationale")
        told = batch.require(f"{LOGP_PREFIX}{self.teacher}", str(self)).double()
        softened = (1 + batch.rationale.sum(1).double().log10()).clamp(min=1)
        own = -mean_of_best(told, batch.answer, batch.alias) / softened  # of several right answers the least surprising
        rollouts = Groups.of(batch.rollout)
        return rollouts.mean(own, batch.has_answer), rollouts.count(batch.has_answer) > 0


def _compare(
    groups: Groups, surprise: Float[Tensor, " B"], length: Float[Tensor, " B"], ranked: Bool[Tensor, " B"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Of each row, how many ranked rows of its group are less surprised, longer and more surprised, and others."""
    s, size = groups.dense(surprise, 0.0), groups.dense(length, 0.0)
    other = groups.dense(ranked.double(), 0.0).bool()[:, None, :]
    less = (other & (s[:, None, :] < s[:, :, None])).sum(2)
    slower = (other & (s[:, None, :] > s[:, :, None]) & (size[:, None, :] > size[:, :, None])).sum(2)
    others = groups.count(ranked) - ranked.double()
    return groups.rows(less).double(), groups.rows(slower).double(), others
