"""Scorers of answers: text in, a number in [0, 1] out; and how they become reward functions for a trainer."""

from qredit.rewards.base import Scorer
from qredit.rewards.given import Response, Reward, read_rewards, unparseable
from qredit.rewards.math_equal import math_equal
from qredit.rewards.numeric import numeric
from qredit.rewards.registry import REGISTRY, as_reward, get
from qredit.rewards.text import exact_match, f1, normalize_answer, normalized_exact_match, substring

__all__ = [
    "REGISTRY",
    "Response",
    "Reward",
    "Scorer",
    "as_reward",
    "exact_match",
    "f1",
    "get",
    "math_equal",
    "normalize_answer",
    "normalized_exact_match",
    "numeric",
    "read_rewards",
    "substring",
    "unparseable",
]
