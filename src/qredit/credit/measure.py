"""One number measured of each rollout, as a source: its length, its mean entropy, the step's mean reward."""

from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Scope, Source
from qredit.stats import masked


@dataclass(frozen=True)
class sampled_length(Source):
    """The number of sampled tokens of each rollout."""

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        return Coefficient(batch.sampled.sum(1, keepdim=True).double(), keep=batch.drawn_rows[:, None])


@dataclass(frozen=True)
class mean_entropy(Source):
    """The mean entropy (nats) of each rollout's sampled tokens under the policy that sampled them; 0 without any."""

    needs = frozenset({"sampler_entropy"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        entropy = batch.require("sampler_entropy", str(self)).double()
        return Coefficient(masked.row_mean(entropy, batch.sampled)[:, None], keep=batch.drawn_rows[:, None])


@dataclass(frozen=True)
class batch_mean_reward(Source):
    """The mean reward of all scored rollouts of the optimiser step, on each of them; 0 where none is scored."""

    needs = frozenset({"reward"})
    scope = Scope.BATCH

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        value = batch.require("reward", str(self)).double()[:, None]
        scored = ~value.isnan()
        return Coefficient(masked.mean(value, scored).expand_as(value), keep=scored)


@dataclass(frozen=True)
class cluster_share(Source):
    """r_i = the share of the group whose sampled answers mean the same as answer i, by the field `cluster`.

    0 for an empty answer (cluster -1), which still counts in the group's size. 0 for a whole group in which no two
    answers agree: its semantic entropy is the largest there is, log M. Rows of a gold answer are kept out.
    """

    needs = frozenset({"cluster"})
    scope = Scope.GROUP

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        cluster = batch.require("cluster", str(self))
        keep = ~batch.has_answer
        groups = batch.groups
        theirs, present = groups.dense(cluster, -1), groups.dense(keep & (cluster >= 0), False)
        alike = (theirs[:, :, None] == theirs[:, None, :]) & present[:, :, None] & present[:, None, :]
        size = alike.sum(2).double()
        agreed = size.amax(1, keepdim=True) > 1
        share = groups.rows(torch.where(agreed, size, 0.0)) / groups.count(keep).clamp(min=1)
        return Coefficient(share[:, None], keep=keep[:, None])
