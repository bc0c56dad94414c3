"""Goals F(p), functions of the success rate p that a group's credit can climb, each known by its slope F'(p)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.schedule import check_range
from qredit.utils.imports import import_object

Rate = Float[Tensor, " B"]


@runtime_checkable
class Goal(Protocol):
    """Anything with a method slope(p) → F'(p), for p strictly between 0 and 1; the goals below also add and scale."""

    def slope(self, p: Rate) -> Rate:
        """F'(p) of each group."""


class _Goal(ABC):
    """`a + b` and `0.5 * a` of goals: the slopes add and scale."""

    @abstractmethod
    def slope(self, p: Rate) -> Rate:
        """F'(p) of each group."""

    def __add__(self, other: Goal) -> "_sum":
        return _sum((*_parts(self), *_parts(other)))

    def __rmul__(self, factor: float) -> "_multiple":
        return _multiple(float(factor), self)


def _parts(goal: Goal) -> tuple[Goal, ...]:
    return goal.goals if isinstance(goal, _sum) else (goal,)


@dataclass(frozen=True, repr=False)
class _sum(_Goal):
    goals: tuple[Goal, ...]

    def slope(self, p: Rate) -> Rate:
        return torch.stack([goal.slope(p) for goal in self.goals]).sum(0)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.goals))


@dataclass(frozen=True, repr=False)
class _multiple(_Goal):
    factor: float
    goal: Goal

    def slope(self, p: Rate) -> Rate:
        return self.factor * self.goal.slope(p)

    def __repr__(self) -> str:
        inner = f"({self.goal!r})" if isinstance(self.goal, _sum) else repr(self.goal)
        return f"{self.factor!r} * {inner}"


@dataclass(frozen=True)
class success(_Goal):
    """F = p, slope 1: the expected reward. Its credit r - mean is RLOO's times (M-1)/M."""

    def slope(self, p: Rate) -> Rate:
        return torch.ones_like(p)


@dataclass(frozen=True)
class log_success(_Goal):
    """F = log p, slope 1/p: maximum likelihood of success. Its credit is MaxRL's."""

    def slope(self, p: Rate) -> Rate:
        return 1 / p


@dataclass(frozen=True)
class arcsine(_Goal):
    """F = 2·arcsin√p, slope 1/√(p(1-p)). Its credit is GRPO's with the standard deviation over n."""

    def slope(self, p: Rate) -> Rate:
        return (p * (1 - p)).rsqrt()


@dataclass(frozen=True)
class pass_at(_Goal):
    """F = 1 - (1-p)^k, slope k(1-p)^{k-1}: at least one of k tries is right."""

    k: int

    def __post_init__(self) -> None:
        check_range("k", self.k, 1, math.inf)

    def slope(self, p: Rate) -> Rate:
        return self.k * (1 - p) ** (self.k - 1)


@dataclass(frozen=True)
class success_std(_Goal):
    """F = √(p(1-p)), the standard deviation of a 0/1 reward, slope (1-2p) / (2√(p(1-p))).

    It is concave, so adding it moves weight from easy to hard prompts.
    `0.5 * arcsine() + success_std()` has the credit of GRPO times (1 - p̂).
    """

    def slope(self, p: Rate) -> Rate:
        return (0.5 - p) * (p * (1 - p)).rsqrt()


@dataclass(frozen=True)
class imported_slope(_Goal):
    """F'(p) by a function of the user's at an import path, `imported_slope('package.module.name')`.

    Raises QreditError where nothing callable is found at the path.
    """

    path: str

    def __post_init__(self) -> None:
        self._function()

    def slope(self, p: Rate) -> Rate:
        return self._function()(p)

    def _function(self) -> Callable[[Rate], Rate]:
        return import_object(self.path)
