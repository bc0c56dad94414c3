"""The majority of the sampled answers as the reward."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Scope, Source


@dataclass(frozen=True)
class majority_vote(Source):
    """c_i = 1 if rollout i's answer is in the largest cluster of its group, else 0.

    Answers are equal where the field `cluster` is; an empty answer (-1) has no vote and gets 0. Among clusters of one
    size the smallest number wins. With `leave_one_out` a rollout is compared with the majority of the others' answers,
    and gets 0 where they have none. Rows of a gold answer are kept out.

    Source: arXiv 2511.17938 (SPINE) and other test-time RL, from others' notes. Difference: ties are not stated there.
    """

    leave_one_out: bool = False
    needs = frozenset({"cluster"})
    scope = Scope.GROUP

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        groups = batch.groups
        keep = ~batch.has_answer
        said = torch.where(keep, batch.require("cluster", str(self)).double(), -1.0)
        cluster = groups.dense(said, -1.0)
        width = cluster.shape[1]
        voter = (cluster >= 0)[:, None, :].expand(-1, width, -1)
        if self.leave_one_out:
            voter = voter & ~torch.eye(width, dtype=torch.bool, device=cluster.device)
        agrees = (cluster == _winner(cluster, voter)) & (cluster >= 0)
        return Coefficient(groups.rows(agrees.double())[:, None], keep=keep[:, None])


def _winner(cluster: Float[Tensor, "G M"], voter: Bool[Tensor, "G M M"]) -> Float[Tensor, "G M"]:
    """For each member of each group, the cluster with the most of its voters, the smallest of several; -1 for none."""
    same = (cluster[:, :, None] == cluster[:, None, :]).double()
    votes = voter.double() @ same
    leads = voter & (votes == votes.amax(2, keepdim=True))
    lowest = torch.where(leads, cluster[:, None, :], torch.inf).amin(2)
    return torch.where(leads.any(2), lowest, -1.0)
