"""Scorers of answers: text in, a number in [0, 1] out; and how they become reward functions for a trainer."""

from qredit.rewards.answer_scorer import Scorer
from qredit.rewards.math_equal import math_equal
from qredit.rewards.numeric import last_number, numeric
from qredit.rewards.registry import REGISTRY, get, make_reward_function
from qredit.rewards.reward_spec import Response, Reward, find_unparseable, parse_rewards
from qredit.rewards.text import exact_match, f1, normalize_answer, normalized_exact_match, substring
from qredit.rewards.tool_use import tool_use
from qredit.utils.former_names import former_names

__all__ = [
    "REGISTRY",
    "Response",
    "Reward",
    "Scorer",
    "make_reward_function",
    "exact_match",
    "f1",
    "get",
    "last_number",
    "math_equal",
    "normalize_answer",
    "normalized_exact_match",
    "numeric",
    "parse_rewards",
    "substring",
    "tool_use",
    "find_unparseable",
]

__getattr__ = former_names(
    __name__, {"as_reward": "make_reward_function", "read_rewards": "parse_rewards", "unparseable": "find_unparseable"}
)
