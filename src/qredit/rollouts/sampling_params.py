"""How completions are drawn: how many tokens, and from which distribution."""

from dataclasses import dataclass

from qredit.utils.former_names import former_names


@dataclass(frozen=True)
class TokenBudget:
    """How many tokens may be sampled.

    Attributes:
        thinking: tokens of the rationale, a sampled closing included; then the closing is forced.
        answer: tokens of the sampled answer, its end included.
    """

    thinking: int
    answer: int

    @property
    def terms(self) -> tuple[str, str]:
        """What errors call the tokens before the answer, and what they advise where there are too many."""
        return "for thinking", "lower max_completion_length"


@dataclass(frozen=True)
class SamplingParams:
    """The distribution that tokens are drawn from, as a change of the model's own; the default changes nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0

    @property
    def is_biased(self) -> bool:
        """Whether rationales come from another distribution than p(z | x)."""
        return self != SamplingParams()


__getattr__ = former_names(__name__, {"Budget": "TokenBudget", "Draw": "SamplingParams"})
