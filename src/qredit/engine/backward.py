"""Backward passes, as an engine runs them: with its scaling, and without exchanging gradients where more follow."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn


class Backward(Protocol):
    """What a loss that is differentiated in several parts asks of its engine."""

    def run(self, loss: Tensor) -> None:
        """Add the gradient of a part of the loss to those of the parameters."""

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Processes exchange no gradients inside: they do so once, at the last part of a step."""


class AutogradBackward:
    """autograd's own, on one process."""

    def run(self, loss: Tensor) -> None:
        loss.backward()

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()
