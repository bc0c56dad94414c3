"""Rewards for saying how hard a question is, and for thinking as long as that asks for."""

import math
from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.length import lengths

NO_TAG, EASY, HARD = 0, 1, 2


@dataclass(frozen=True)
class success_as_sign(Credit):
    """c_i ← +1 where c_i is above 0, -1 elsewhere: a reward of 0/1 as one of ±1. A reward of ±1 stays as it is."""

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        return coefficient.with_row(torch.where(value > 0, 1.0, -1.0).to(value))


@dataclass(frozen=True)
class add_difficulty_rewards(Credit):
    """c_i ← c_i + tag_weight · r_tag + length_weight · r_len; a rollout is right where c_i is above 0.

    A group is easy if more than `threshold` of its rollouts are right, else hard. `difficulty_tag` (B,) is what the
    rollout says of it: 0 nothing, 1 easy, 2 hard.

        r_tag = 1 if the tag is the group's, 0 if it is the other one, -1 if there is none
        r_len = (1 + cos(π l/L)) / 2 if easy, (1 - cos(π l/L)) / 2 if hard; 0 unless the tag is the group's

    l is the rollout's length in sampled tokens and L the group's longest. r_len is paid whether or not the answer is
    right.
    """

    threshold: float = 0.625
    length_weight: float = 0.5
    tag_weight: float = 0.5
    needs = frozenset({"difficulty_tag"})
    scope = Scope.GROUP

    def __post_init__(self) -> None:
        check_range("threshold", self.threshold, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        groups, tokens = batch.groups, lengths(batch)
        easy = groups.mean((value > 0).to(value), keep) > self.threshold
        tag = batch.require("difficulty_tag", str(self))
        named = tag == torch.where(easy, EASY, HARD)
        r_tag = torch.where(named, 1.0, torch.where(tag == NO_TAG, -1.0, 0.0))
        longest = groups.rows(groups.dense(torch.where(keep, tokens, 0.0), 0.0).amax(1, keepdim=True)).clamp(min=1)
        wave = torch.cos(math.pi * tokens / longest)
        r_len = torch.where(named, (1.0 + torch.where(easy, wave, -wave)) / 2.0, 0.0)
        return coefficient.with_row(value + self.tag_weight * r_tag + self.length_weight * r_len)
