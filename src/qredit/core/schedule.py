"""Values that change with training progress.

Any hyper-parameter of a stage may be a schedule instead of a number. `progress` runs from 0 (first step) to 1 (end of
training). `resolve_schedules` replaces every schedule inside a tree of frozen dataclasses by its value at one moment.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from qredit.utils.errors import QreditError

T = TypeVar("T")


class Schedule(ABC):
    """A number as a function of training progress."""

    @abstractmethod
    def at(self, progress: float) -> float:
        """The value at `progress` in [0, 1]."""

    @property
    @abstractmethod
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value ever taken: what a range check needs."""


@dataclass(frozen=True)
class linear(Schedule):
    """From `start` to `end` in a straight line: start + (end - start)·progress."""

    start: float
    end: float

    def at(self, progress: float) -> float:
        return self.start + (self.end - self.start) * _clip(progress)

    @property
    def extremes(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class cosine(Schedule):
    """From `start` to `end` along half a cosine: flat at both ends, steepest in the middle."""

    start: float
    end: float

    def at(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * _clip(progress))) / 2

    @property
    def extremes(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class exponential(Schedule):
    """From `start` to `end` by equal factors: start · (end / start)^progress, both above 0.

    >>> round(exponential(800.0, 160.0).at(0.5), 1)
    357.8
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise QreditError(f"{name} of exponential must be a number above 0, got {value!r}")

    def at(self, progress: float) -> float:
        return float(self.start * (self.end / self.start) ** _clip(progress))

    @property
    def extremes(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class steps(Schedule):
    """`values[0]` until progress reaches `switches[0]`, then `values[1]`, and so on.

    >>> steps(values=(1.0, 0.0), switches=(0.5,)).at(0.5)
    0.0
    """

    values: tuple[float, ...]
    switches: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "switches", tuple(self.switches))
        if len(self.values) != len(self.switches) + 1:
            raise QreditError(
                f"steps needs one value more than switches, got {len(self.values)} and {len(self.switches)}"
            )
        if list(self.switches) != sorted(self.switches):
            raise QreditError(f"the switches of steps must ascend, got {self.switches}")

    def at(self, progress: float) -> float:
        return self.values[sum(progress >= switch for switch in self.switches)]

    @property
    def extremes(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class auto(Schedule):
    """Not progress but the run itself decides: a trainer looks at what its groups show (`qredit.control`).

    Args:
        start: the most that it may be; what it is wherever nothing guides it.
    """

    start: float = 1.0

    def at(self, progress: float) -> float:
        return self.start

    @property
    def extremes(self) -> tuple[float, float]:
        return min(0.0, self.start), max(0.0, self.start)


def resolve_schedules(value: T, progress: float) -> T:
    """`value` with every schedule in it replaced by its number at `progress`; the same object if there is none."""
    return replace_schedules(value, lambda schedule: schedule.at(progress))


def replace_schedules(value: T, by: Callable[[Schedule], Any]) -> T:
    """`value` with every schedule in it replaced by what `by` makes of it; the same object where nothing changes."""
    if isinstance(value, Schedule):
        return by(value)  # type: ignore[no-any-return]
    if isinstance(value, tuple):
        items = tuple(replace_schedules(item, by) for item in value)
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed: dict[str, Any] = {}
        for f in dataclasses.fields(value):
            old = getattr(value, f.name)
            new = replace_schedules(old, by)
            if new is not old:
                changed[f.name] = new
        return dataclasses.replace(value, **changed) if changed else value
    return value


def check_range(name: str, value: "float | Schedule", low: float, high: float) -> None:
    """Refuse a number, or a schedule that ever takes one, outside [low, high].

    Args:
        name: what errors call it.
        value: the number, or the schedule whose extremes are checked.
        low: smallest allowed value.
        high: largest allowed value.

    Raises:
        QreditError: names the parameter, the value and the range.
    """
    smallest, largest = value.extremes if isinstance(value, Schedule) else (value, value)
    for number in (smallest, largest):
        if not isinstance(number, int | float) or isinstance(number, bool) or not low <= number <= high:
            raise QreditError(f"{name} must be a number between {low:g} and {high:g}, got {number!r}")


def _clip(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)
