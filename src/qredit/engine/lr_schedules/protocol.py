"""What a rule is that says how the learning rate moves after its warmup."""

from abc import ABC, abstractmethod
from collections.abc import Callable


class LrSchedule(ABC):
    """A rule: a frozen dataclass of its arguments."""

    @abstractmethod
    def make(self) -> Callable[[float], float]:
        """The share of the largest learning rate, 0 … 1, by the share of the steps after the warmup that are over.

        Raises:
            QreditError: what it is made of cannot be read.
        """


def put_behind_warmup(after: Callable[[float], float], warmup: int, steps: int) -> Callable[[int], float]:
    """A schedule behind a warmup, as `LambdaLR` asks for it: a function of the number of steps that were taken.

        step / warmup                                   up to the warmup's end
        after((step - warmup) / (steps - warmup))       from there on

    The layout is that of transformers' linear schedule: with after(u) = 1 - u it is that one. It is a plain function,
    since of any other callable `LambdaLR` puts the attributes into the checkpoint.

    Args:
        after: by the share of the later steps that are over.
        warmup: steps over which the rate rises.
        steps: of the run.
    """

    def at(step: int) -> float:
        if step < warmup:
            return step / warmup
        return after(min((step - warmup) / max(1, steps - warmup), 1.0))

    return at
