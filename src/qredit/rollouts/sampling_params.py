"""How completions are drawn: how many tokens, and from which distribution."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """How many tokens may be sampled.

    Attributes:
        thinking: tokens of the rationale, a sampled closing included; then the closing is forced.
        answer: tokens of the sampled answer, its end included.
    """

    thinking: int
    answer: int


@dataclass(frozen=True)
class Draw:
    """The distribution that tokens are drawn from, as a change of the model's own; the default changes nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0

    @property
    def biased(self) -> bool:
        """Whether rationales come from another distribution than p(z | x)."""
        return self != Draw()
