"""What groups show a prompt sampler: from a scored batch, or from rewards alone."""

import math
from collections.abc import Sequence

import torch

from qredit.core.batch import RolloutBatch
from qredit.data.prompt_sampler import GroupStatistics


def summarize_rewards(
    example: int, rewards: Sequence[float], answer_logp: float | None = None, learned: bool = False
) -> GroupStatistics:
    """The statistics of a group, by default of one that is not learned from.

    Args:
        example: its prompt.
        rewards: of its rollouts, NaN where nothing scored one.
        answer_logp, learned: as in `GroupStatistics`.
    """
    scored = [reward for reward in rewards if not math.isnan(reward)]
    return GroupStatistics(example, _mean(scored), len(set(scored)) < 2, answer_logp, learned)


def summarize_groups(batch: RolloutBatch, examples: Sequence[int]) -> list[tuple[int, GroupStatistics]]:
    """For each group that is learned from, its place in the generation, and its statistics.

    Rollouts that were shown the gold answer say nothing of how hard a prompt is, and are left out.

    Args:
        batch: whole groups, as the forward passes scored them.
        examples: the prompts of the generation, over all processes; groups are numbered in their order, generation
            after generation.
    """
    # brought over once: every number that is read off an accelerator by itself would wait for it
    groups, has_answer = batch.group.cpu(), batch.has_answer.cpu()
    reward = None if batch.reward is None else batch.reward.cpu()
    likely = None if batch.answer_logp is None else batch.answer_logp.cpu()
    plain = torch.ones_like(has_answer) if batch.proposal is None else ~batch.proposal.cpu()
    found = []
    for group in groups.unique().tolist():
        rows, place = (groups == group) & plain, group % len(examples)
        statistics = summarize_rewards(
            examples[place],
            [] if reward is None else reward[rows].tolist(),
            None if likely is None else _mean(likely[rows & has_answer].tolist()),
            learned=True,
        )
        found.append((place, statistics))
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
