"""What decides which rollouts are kept and learned from again: rules that see what is kept and keep no state."""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.objective import Credited, Objective
from qredit.core.reduce import Reduction


@dataclass(frozen=True, eq=False)
class Remembered:
    """What a run has kept of the generations before this one.

    Attributes:
        reward: (N,) float64, of each rollout that is kept, oldest first.
        age: (N,) optimiser steps since the last one on its generation.
        group_mean, group_std: (G,) float64, mean and standard deviation (over M) of the rewards of each of the last
            groups, whether rollouts of them are kept or not, oldest first.
    """

    reward: Float[Tensor, " N"]
    age: Int[Tensor, " N"]
    group_mean: Float[Tensor, " G"]
    group_std: Float[Tensor, " G"]


@dataclass(frozen=True, eq=False)
class Replayed:
    """What is learned from again.

    Attributes:
        places: (n,) numbers of rollouts among those that are kept, ascending.
        advantage: (n,) float64, that of each of them; None leaves their rewards, for a loss that reads something else.
        baseline: what rewards were compared with; None is nothing.
        stays: all that was kept stays until it is too old, also what was chosen; else all of it is dropped.
    """

    places: Int[Tensor, " n"]
    advantage: Float[Tensor, " n"] | None = None
    baseline: float | None = None
    stays: bool = False


class ReplayRule(Protocol):
    """A rule. When the last optimiser step on a generation is done, it says what is learned from again, of rollouts of
    earlier generations, and whether these are dropped then. After that the rollouts of this generation are kept.

    Attributes:
        tolerance: how many optimiser steps a rollout is kept.
        groups: of how many groups, the last ones, statistics are kept.
    """

    @property
    def tolerance(self) -> int: ...

    @property
    def groups(self) -> int: ...

    def keep(self, batch: RolloutBatch, credited: Credited) -> Bool[Tensor, " B"]:
        """The rows that may be learned from again.

        Args:
            batch: that was learned from just now.
            credited: its coefficients.
        """
        ...

    def choose(self, kept: Remembered, seed: int) -> Replayed | None:
        """What is learned from again now; None is nothing, and keeps everything.

        Args:
            kept: of earlier generations.
            seed: all that is drawn is a function of it.
        """
        ...

    def factor(self, step: int) -> float:
        """What the loss is multiplied by; while it is 0 nothing is chosen.

        Args:
            step: number of the optimiser step of the run, from 1.
        """
        ...

    def make_objective(self, reduction: Reduction) -> Objective:
        """The loss of what is learned from again. The batch field `reward` holds the advantage that `choose` gave; the
        source `kept_credit` has the coefficients that rows were first learned from with.

        Args:
            reduction: of the run's own objective.
        """
        ...
