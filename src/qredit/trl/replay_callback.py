"""When rollouts are learned from again: while transformers' loop holds the optimiser that has just stepped."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback


class ReplayCallback(TrainerCallback):  # type: ignore[misc]
    """Takes further steps behind each optimiser step, before the learning rate moves and anything is saved.

    Args:
        take: takes them, where there are any to take.
    """

    def __init__(self, take: Callable[[], None]) -> None:
        self.take = take

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.take()
