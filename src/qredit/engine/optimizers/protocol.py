"""What a rule is that makes an optimiser."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer


@dataclass(frozen=True)
class AdamSettings:
    """What a run says of Adam: of all weights, or of those that a rule leaves to it.

    Attributes:
        lr: the largest learning rate; a schedule moves it.
        weight_decay: of weights that decay.
        betas, eps: as PyTorch has them.
        decayed: names of the parameters that decay.
    """

    lr: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    decayed: Collection[str]


class OptimizerRule(ABC):
    """Makes an optimiser; a frozen dataclass of its own arguments."""

    @abstractmethod
    def make(self, model: Any, settings: AdamSettings) -> Optimizer:
        """An optimiser of all weights of a model that learn.

        Args:
            model: a loaded model, with or without adapters.
            settings: of the run.
        """
