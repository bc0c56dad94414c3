"""What groups show a prompt sampler: from a scored batch, or from rewards alone."""

import math
from collections.abc import Sequence

from qredit.core.batch import RolloutBatch
from qredit.data.prompt_sampler import GroupStatistics


def summarize_rewards(example: int, rewards: Sequence[float]) -> GroupStatistics:
    """The statistics of a group that is not learned from.

    Args:
        example: its prompt.
        rewards: of its rollouts, NaN where nothing scored one.
    """
    scored = [reward for reward in rewards if not math.isnan(reward)]
    return GroupStatistics(example, _mean(scored), all_equal=len(set(scored)) < 2, learned=False)


def summarize_groups(batch: RolloutBatch, examples: Sequence[int]) -> list[tuple[int, GroupStatistics]]:
    """For each group that is learned from, its place in the generation, and its statistics.

    Args:
        batch: whole groups, as the forward passes scored them.
        examples: the prompts of the generation, over all processes; groups are numbered in their order, generation
            after generation.
    """
    found = []
    for group in batch.group.unique().tolist():
        rows = batch.group == group
        place = group % len(examples)
        rewards = [] if batch.reward is None else batch.reward[rows].tolist()
        scored = [reward for reward in rewards if not math.isnan(reward)]
        likely = [] if batch.answer_logp is None else batch.answer_logp[rows & batch.has_answer].tolist()
        found.append(
            (place, GroupStatistics(examples[place], _mean(scored), len(set(scored)) < 2, answer_logp=_mean(likely)))
        )
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
