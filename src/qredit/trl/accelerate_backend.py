"""accelerate's processes and backward passes behind the protocols of a step."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn


@dataclass(frozen=True)
class AccelerateBackend:
    """A `Collective` and a `Backward` made of an accelerator."""

    accelerator: Accelerator

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def size(self) -> int:
        return int(self.accelerator.num_processes)

    def gather(self, values: list[Any]) -> list[Any]:
        return list(gather_object(values))

    def sum(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values.to(self.accelerator.device), "sum").to(values.device)  # type: ignore[no-any-return]

    def run(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        return self.accelerator.no_sync(model)  # type: ignore[no-any-return]
