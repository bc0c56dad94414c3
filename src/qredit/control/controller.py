"""The controller behind `q: auto`: which q and which estimator the next step takes, from what the last ones showed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from qredit.control.signal_level import signal_level, smallest_sufficient_q
from qredit.stats.nearest_rank import lower_median
from qredit.utils.formatting import format_probability

MIN_LOG10_SIGNAL = -2.0
"""log10 of the median group's effective reward to be kept: a factor 10^6 above Adam's epsilon. Kept and not only
reached, for Adam remembers the scale of past gradients."""
SILENT_LOG10_SIGNAL = -6.0
"""log10 of the effective reward below which q rises again: four orders below what is kept, so that after louder steps
Adam, which divides by those, hardly moves the median group's answers. A judgement, made after a run that had stayed at
q = 0 while likelihoods fell to 1e-12."""
WINDOW = 5
"""Steps that a decision looks at."""
MIN_EFFECTIVE_RATIONALES = 4.0
"""Effective rationales, median over groups, from which drawing one by its weight is a draw from the posterior and no
repetition of a single rationale: the noise of PAFT's direction, 1/ESS, is then at most a quarter."""

Estimator = Literal["garl", "paft"]


@dataclass(frozen=True)
class GroupStats:
    """What one step showed of its groups.

    Attributes:
        p_hat, largest: log10 of the mean and of the largest likelihood of each group.
        ess: (Σw)²/Σw² of each group that has likelihood.
    """

    p_hat: tuple[float, ...]
    largest: tuple[float, ...]
    ess: tuple[float, ...]


@dataclass(frozen=True)
class Decision:
    """A change, and why.

    Attributes:
        step: steps taken before it.
    """

    step: int
    estimator: Estimator
    q: float
    reason: str

    def told(self) -> dict[str, Any]:
        """As a log holds it."""
        return {"step": self.step, "change": f"{self.estimator}(q={self.q:g})", "reason": self.reason}


@dataclass(frozen=True)
class QController:
    """Lowers q as p̂ rises, and moves from GARL to PAFT once posterior sampling is sound.

    q is the smallest at which the median group's effective reward was 10^`MIN_LOG10_SIGNAL` in each of the last steps.
    It falls to that. It rises only where the effective reward was below 10^`SILENT_LOG10_SIGNAL` in each of them, and
    then GARL is back. PAFT takes over where q is 0, so nothing is left to amplify, if the median group rests on
    `MIN_EFFECTIVE_RATIONALES` rationales.

    Attributes:
        m: rollouts of a group.
        moves: whether it may change the estimator.
        recent: the groups of the last steps, of `WINDOW` at most.
        most: q rises no higher.
    """

    q: float
    m: int
    estimator: Estimator = "garl"
    moves: bool = True
    recent: tuple[GroupStats, ...] = ()
    most: float = 1.0

    def observe(self, step: int, groups: GroupStats) -> tuple["QController", Decision | None]:
        """The controller after a step, and what it decided for the next ones, if anything."""
        seen = replace(self, recent=(*self.recent, groups)[-WINDOW:])
        if len(seen.recent) < WINDOW:
            return seen, None
        enough = [smallest_sufficient_q(one.largest, one.p_hat, self.m, MIN_LOG10_SIGNAL) for one in seen.recent]
        wanted, raised = max(enough), min(*enough, self.most)
        if self.q < raised and seen._is_silent:
            return _decided(replace(seen, q=raised, estimator="garl"), step, _because(seen.recent, self.m, raised))
        if wanted < self.q:
            return _decided(replace(seen, q=wanted), step, _because(seen.recent, self.m, wanted))
        # q may be 0 because the run allows no more: then something is left to amplify.
        if self.moves and self.q == wanted == 0.0 and self.estimator == "garl" and seen._is_sound:
            reason = f"the median group rests on {seen._effective:.1f} of {self.m} rationales: draws from the posterior"
            return _decided(replace(seen, estimator="paft"), step, reason)
        return seen, None

    @property
    def _effective(self) -> float:
        """Effective rationales, median over groups; 0 where none has likelihood."""
        return lower_median([value for groups in self.recent for value in groups.ess], 0.0)

    @property
    def _is_silent(self) -> bool:
        """Whether the present q left the median group as good as nothing in every step, and another would not."""
        levels = (signal_level(one.largest, one.p_hat, self.m, self.q) for one in self.recent)
        return all(-math.inf < level < SILENT_LOG10_SIGNAL for level in levels)

    @property
    def _is_sound(self) -> bool:
        return self._effective >= MIN_EFFECTIVE_RATIONALES

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)


def start_controller(groups: GroupStats, m: int, most: float, moves: bool) -> tuple[QController, Decision]:
    """The controller before the first step, from what a look at some prompts showed.

    Args:
        groups: what the groups of some prompts showed.
        m: rollouts per prompt.
        most: q begins and rises no higher.
        moves: whether the estimator may change.
    """
    enough = smallest_sufficient_q(groups.largest, groups.p_hat, m, MIN_LOG10_SIGNAL)
    start = QController(q=min(enough, most), m=m, moves=moves, most=most)
    return _decided(start, 0, _because((groups,), m, start.q))


def restore_controller(state: Mapping[str, Any], most: float) -> QController:
    """The controller of a `state`.

    Args:
        state: as a checkpoint holds it; those of former versions do not say how high q may rise.
        most: what to take then.
    """
    recent = tuple(GroupStats(**{name: tuple(values) for name, values in one.items()}) for one in state["recent"])
    return QController(**{"most": most, **state, "recent": recent})


def _decided(controller: QController, step: int, reason: str) -> tuple[QController, Decision]:
    return controller, Decision(step, controller.estimator, controller.q, reason)


def _because(seen: Sequence[GroupStats], m: int, q: float) -> str:
    """Why this q: how likely answers are, and how loud the quietest of these steps was with it."""
    p_hat = lower_median([value for one in seen for value in one.p_hat], -math.inf)
    if p_hat == -math.inf:
        return "most groups give their gold answer no likelihood at all"
    level = min(signal_level(one.largest, one.p_hat, m, q) for one in seen)
    return (
        f"median p̂ is {format_probability(p_hat)}, and at q = {q:g} the median group's effective reward is "
        f"{format_probability(level)} or more"
    )
