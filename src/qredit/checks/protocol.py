"""What says whether a step of a rationale is right: rules that keep no state."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
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
    found = list(rule.check(cases)) if cases else []
    fault = next((one for one in found if one not in (True, False, None)), None)
    if len(found) != len(cases) or fault is not None:
        told = f"{len(found)} of them" if fault is None else repr(fault)
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
