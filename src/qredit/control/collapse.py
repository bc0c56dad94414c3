"""When a run has collapsed: a stated test on what each step's groups, or each validation, show."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from qredit.utils.formatting import format_share

MAX_STEPS = 10
"""Steps whose groups are taken together at most, if these are `MIN_GROUPS` or more."""
FALL_SHARE = 0.5
"""A fall to less than this share of the best."""
FALL_STANDARD_ERRORS = 4.0
"""By so many standard errors of the difference, both means with the larger of the two variances, for the best is chosen
among many and a window of failures alone has no variance. Chance seldom does that in a steady run of hundreds of steps.
"""
MIN_GROUPS = 40
"""Groups that are taken together at least, over as many steps as that takes."""
VALIDATION_FALL_SHARE = 0.75
"""A validation's fall, to less than this share of the best; its intervals must part as well."""


@dataclass(frozen=True)
class DetectedCollapse:
    """A collapse, in words with its numbers."""

    reason: str


@dataclass(frozen=True)
class WindowStats:
    """Mean, variance, number and last step of some neighbouring steps' groups."""

    step: int
    mean: float
    variance: float
    count: int

    def error(self, other: "WindowStats") -> float:
        """The standard error of the difference of two means, both with the larger variance."""
        return math.sqrt(max(self.variance, other.variance) * (1 / self.count + 1 / other.count))


@dataclass(frozen=True)
class ValidationResult:
    """A validation: a rate with its 95 % interval."""

    step: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CollapseDetector:
    """Watches shares of success, sampled or by likelihood, and the validations where there are any.

    Attributes:
        recent: each of the last steps' groups: their mean likelihood p̂, or their mean reward.
        best: the best stretch of steps so far.
        good: whether the last stretch is as good, within one standard error of the difference, and its last step not
            below `FALL_SHARE` of it.
        validated: the best validation so far.
    """

    recent: tuple[tuple[float, ...], ...] = ()
    best: WindowStats | None = None
    good: bool = False
    validated: ValidationResult | None = None

    def observe(self, step: int, groups: Sequence[float]) -> tuple["CollapseDetector", DetectedCollapse | None]:
        """After a step's groups: collapsed if their mean over the last steps is below `FALL_SHARE` of the best such
        mean, by `FALL_STANDARD_ERRORS` standard errors of the difference. Shares of success are meant: a best mean of 0
        or less is none.
        """
        seen = replace(self, recent=_latest((*self.recent, tuple(groups))))
        values = [value for one in seen.recent for value in one]
        if len(values) < MIN_GROUPS:
            return replace(seen, good=False), None
        now = WindowStats(step, statistics.fmean(values), statistics.variance(values), len(values))
        if self.best is None or now.mean >= self.best.mean:
            return replace(seen, best=now, good=_holds(groups, now)), None
        fall, error = self.best.mean - now.mean, self.best.error(now)
        seen = replace(seen, good=fall <= error and _holds(groups, self.best))
        if self.best.mean <= 0 or now.mean >= FALL_SHARE * self.best.mean or fall < FALL_STANDARD_ERRORS * error:
            return seen, None
        reason = f"success fell from {format_share(self.best.mean)} (step {self.best.step}) to {format_share(now.mean)}"
        return seen, DetectedCollapse(reason)

    def check(self, now: ValidationResult) -> tuple["CollapseDetector", DetectedCollapse | None]:
        """After a validation: collapsed if it is below `VALIDATION_FALL_SHARE` of the best one and their intervals
        part.
        """
        if self.validated is None or now.value >= self.validated.value:
            return replace(self, validated=now), None
        if now.value >= VALIDATION_FALL_SHARE * self.validated.value or now.high >= self.validated.low:
            return self, None
        best = self.validated
        reason = (
            f"validation fell from {format_share(best.value)} (step {best.step}, at least {format_share(best.low)}) to "
            f"{format_share(now.value)} (at most {format_share(now.high)})"
        )
        return self, DetectedCollapse(reason)

    def after(self) -> "CollapseDetector":
        """Once something was done about it: what was best stays, what is recent begins anew."""
        return replace(self, recent=(), good=False)

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)


def restore_detector(state: dict[str, Any]) -> CollapseDetector:
    """The watch of a `state`."""
    best, validated = state["best"], state["validated"]
    return CollapseDetector(
        recent=tuple(tuple(one) for one in state["recent"]),
        good=state["good"],
        best=None if best is None else WindowStats(**best),
        validated=None if validated is None else ValidationResult(**validated),
    )


def _latest(steps: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """The last steps: `MAX_STEPS` at most, or as many as it takes to have `MIN_GROUPS` groups."""
    while len(steps) > MAX_STEPS and sum(map(len, steps[1:])) >= MIN_GROUPS:
        steps = steps[1:]
    return steps


def _holds(groups: Sequence[float], best: WindowStats) -> bool:
    """Whether the last step by itself is no collapse: its mean is not below `FALL_SHARE` of the best."""
    return bool(groups) and statistics.fmean(groups) >= FALL_SHARE * best.mean
