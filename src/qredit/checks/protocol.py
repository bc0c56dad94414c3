"""What says whether a step of a rationale is right: rules that keep no state."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qredit.utils.errors import QreditError

Verdict = bool | None
"""Right, wrong, or None where nothing can be said."""


@dataclass(frozen=True)
class StepCase:
    """A step to check; all its texts are what a model and data say: untrusted.

    Attributes:
        question: the prompt as text.
        before: the steps that stand before it.
        step: the step itself.
        answer: the right answer, where it is known.
    """

    question: str
    before: tuple[str, ...]
    step: str
    answer: str | None = None


class StepCheck(ABC):
    """A rule: a frozen dataclass of its arguments."""

    @abstractmethod
    def check(self, cases: Sequence[StepCase]) -> list[Verdict]:
        """A verdict on each step, in order.

        Raises:
            QreditError: who is asked cannot be had.
        """


def score_verdict(verdict: Verdict) -> float:
    """1 for right, -1 for wrong, 0 where nothing was said."""
    return 0.0 if verdict is None else 1.0 if verdict else -1.0


def check_cases(rule: StepCheck, cases: Sequence[StepCase]) -> list[Verdict]:
    """The verdicts of a rule, which may be a user's own.

    Args:
        rule: that is asked; not at all where there is no case.
        cases: steps.

    Raises:
        QreditError: as `StepCheck.check`; as many verdicts as cases are needed, each True, False or None.
    """
    given = rule.check(cases) if cases else []
    found = list(given) if isinstance(given, Iterable) else [given]
    faults = [one for one in found if not (one is None or isinstance(one, bool))]  # 1 and 0 are no verdicts: `is False`
    if len(found) != len(cases) or faults:
        told = repr(faults[0]) if faults else f"{len(found)} of them"
        raise QreditError(f"{rule} must give {len(cases)} verdicts, each True, False or None, and gave {told}")
    return found


def require_check(user: str, rule: object) -> None:
    """Refuse what is no rule.

    Args:
        user: that takes it, for errors.
        rule: as it was given.

    Raises:
        QreditError: says what it is.
    """
    if not isinstance(rule, StepCheck):
        raise QreditError(f"{user} needs a check of steps, such as arithmetic(), got {rule!r}")
