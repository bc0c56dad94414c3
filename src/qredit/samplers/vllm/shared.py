"""One engine for several processes: with tensor parallelism each asks for the rows of all, and keeps its own."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qredit.rollouts.sampling_params import SamplingParams
from qredit.samplers.vllm.engine import Engine, EngineOutput, EngineRow


@dataclass
class TensorParallelEngine:
    """An engine whose layers are spread over some processes.

    All of them have to ask for the same rows in the same order. Rows carry their seeds, so that what one draws does not
    depend on the others.

    Attributes:
        engine: this process's part of it.
        gather: a value of this process → those of all that share the engine, in their order; called by all of them.
        place: of this process among them.
    """

    engine: Engine
    gather: Callable[[Any], list[Any]]
    place: int

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return self.engine.dtype

    def generate(self, rows: Sequence[EngineRow], draw: SamplingParams) -> list[EngineOutput]:
        """The outputs of this process's rows."""
        asked: list[list[EngineRow]] = self.gather(list(rows))
        drawn = self.engine.generate([row for each in asked for row in each], draw)
        start = sum(len(each) for each in asked[: self.place])
        return drawn[start : start + len(rows)]

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Draw with these weights from now on; each process keeps its part of them."""
        self.engine.load(weights)

    def is_any(self, going: bool) -> bool:
        """Whether one of the processes says so."""
        return any(self.gather(going))

    def sleep(self) -> None:
        """Give memory back, where that was asked for."""
        self.engine.sleep()
