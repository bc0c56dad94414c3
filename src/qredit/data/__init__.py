"""Prompts and answers as ids, and which prompts come next: the protocol, the plain order, further prompts."""

from qredit.data.prompt_sampler import GroupStatistics, PromptSampler
from qredit.data.shuffled import ShuffledPrompts
from qredit.data.uniform import UniformPrompts

__all__ = ["GroupStatistics", "PromptSampler", "ShuffledPrompts", "UniformPrompts"]
