"""What is asked of vLLM, whether it runs in this process or on a server."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from qredit.rollouts.sampling_params import SamplingParams


@dataclass(frozen=True)
class EngineRow:
    """One completion that is asked for.

    Attributes:
        prompt_ids: what it goes on from.
        max_tokens: most tokens to draw.
        stop_token_ids: ids of which any one ends it.
        stop: text that ends it, as the engine finds it; it may find it a token too late or too early.
        seed: of its own draws, so that they do not depend on what else is drawn.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    stop: str | None
    seed: int


@dataclass(frozen=True)
class EngineOutput:
    """What was drawn: the tokens, what ended them included, and the log-probability of each in nats."""

    ids: tuple[int, ...]
    logp: tuple[float, ...]


class Engine(Protocol):
    """A vLLM engine.

    Attributes:
        dtype: what it computes in, such as bfloat16.
    """

    @property
    def dtype(self) -> str: ...

    def generate(self, rows: Sequence[EngineRow], draw: SamplingParams) -> list[EngineOutput]:
        """One output for each row, in their order; wakes the engine."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Draw with these weights from now on, by transformers' names; forgets cached prompts; wakes the engine."""
        ...

    def is_any(self, going: bool) -> bool:
        """Whether this process, or another that shares the engine and has to be asked along, says so."""
        ...

    def sleep(self) -> None:
        """Give memory back until it is needed again, where that was asked for."""
        ...
