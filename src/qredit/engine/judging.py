"""The reward of one rollout, for engines that score rollouts one by one."""

import math
from collections.abc import Sequence
from functools import lru_cache

from qredit import tasks
from qredit.rewards.reward_spec import Reward, parse_rewards
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.answers import make_response
from qredit.tasks.base import Example


def judge_rollout(
    format: TokenFormat, example: Example, rollout: Trajectory, rewards: Sequence[Reward]
) -> tuple[float, dict[str, float]]:
    """The weighted sum of a rollout's rewards, NaN where nothing scored it, and each reward by its name.

    Rewards read the answer that was sampled, and never an appended gold one.

    Args:
        format: the layout of a completion, as ids of this tokenizer.
        example: the question as it was asked, with its reference answer.
        rollout: as it was sampled.
        rewards: one that returns None has nothing to say of this rollout, and counts as NaN.
    """
    response = make_response(format, example, rollout)
    values = [reward([response])[0] for reward in rewards]
    scored = [(one.weight, value) for one, value in zip(rewards, values, strict=True) if value is not None]
    total = sum(weight * value for weight, value in scored) if scored else math.nan
    return total, {one.name: math.nan if value is None else value for one, value in zip(rewards, values, strict=True)}


@lru_cache(maxsize=64)
def list_rewards(given: str | None, task: str) -> tuple[Reward, ...]:
    """The rewards of a run, or those of a task."""
    return parse_rewards(given or tasks.get(task).reward)
