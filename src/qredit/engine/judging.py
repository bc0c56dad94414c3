"""The reward of one rollout, for engines that score rollouts one by one."""

import math
from collections.abc import Sequence
from typing import Any

from qredit.rewards.reward_spec import Response, Reward
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.trajectory import Trajectory
from qredit.tasks.base import Example


def judge_rollout(
    drawn: Trajectory, example: Example, rewards: Sequence[Reward], layout: TokenFormat, tokenizer: Any
) -> tuple[float, dict[str, float]]:
    """The weighted sum of a rollout's rewards, NaN where nothing scored it, and each reward by its name.

    Rewards read the answer that was sampled, and never an appended gold one.

    Args:
        drawn: the rollout; its `example` has the prompt.
        example: the question, with its reference answer.
        rewards: one that returns None has nothing to say of this rollout, and counts as NaN.
        layout: of completions.
        tokenizer: decodes the rollout's ids.
    """
    response = Response(
        prompt=drawn.example["prompt"],
        completion=tokenizer.decode(drawn.ids, skip_special_tokens=True),
        ids=drawn.ids,
        rationale=tokenizer.decode(drawn.ids[: drawn.rationale_length], skip_special_tokens=True),
        answer=layout.response_text(drawn.answer_ids),
        example=example,
    )
    values = [reward([response])[0] for reward in rewards]
    scored = [(one.weight, value) for one, value in zip(rewards, values, strict=True) if value is not None]
    total = sum(weight * value for weight, value in scored) if scored else math.nan
    return total, {one.name: math.nan if value is None else value for one, value in zip(rewards, values, strict=True)}
