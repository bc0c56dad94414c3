"""The text form of checks: what `qredit search --check` takes.

    arithmetic()
    judge(url='http://localhost:8000/v1/chat/completions', model='NAME')
    my_package.checks.units()       a call of one's own that makes a `StepCheck`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.checks import REGISTRY
from qredit.checks.protocol import StepCheck
from qredit.objectives.parsing import read_kind


@cache  # options are looked at several times
def parse_check(text: str) -> StepCheck:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_kind(text, REGISTRY, "check", "check of steps", StepCheck)  # type: ignore[no-any-return]
