"""Who of a run reads reference answers; where nobody does, data may be without them."""

from collections.abc import Iterable
from typing import Any

from qredit.core.field_names import ANSWER_FIELDS
from qredit.core.objective import Objective
from qredit.engine.base_probability import BASE
from qredit.rewards.finite_rewards import reads_gold


def find_gold_reader(objective: Objective, rewards: Iterable[Any], hint_failed: str | None = None) -> str | None:
    """Why every row needs a reference answer, as part of a sentence; None where none is read.

    Args:
        objective: of the run.
        rewards: TRL reward functions, models or their ids.
        hint_failed: the option of that name.
    """
    if (ANSWER_FIELDS | {BASE}) & objective.needs:
        return f"objective {objective} reads its likelihood"
    if objective.proposal is not None:
        return f"objective {objective} draws behind it"
    if hint_failed is not None:
        return f"hint_failed={hint_failed} shows it"
    return find_gold_reward(rewards)


def find_gold_reward(rewards: Iterable[Any]) -> str | None:
    """The same of rewards alone, as an evaluation reads them."""
    names = [str(getattr(one, "__name__", type(one).__name__)) for one in rewards if reads_gold(one)]
    return f"reward {names[0]} judges by it" if names else None
