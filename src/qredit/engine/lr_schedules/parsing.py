"""The text form of rules: what `--lr-schedule` takes.

    rex()
    refined('runs/first', power=1)
    my_package.rules.stairs(every=10)      a call of one's own that makes an `LrSchedule`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.engine.lr_schedules import REGISTRY
from qredit.engine.lr_schedules.protocol import LrSchedule
from qredit.objectives.parsing import read_kind


@cache  # options are looked at several times
def parse_lr_schedule(text: str) -> LrSchedule:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_kind(text, REGISTRY, "lr_schedule", "schedule", LrSchedule)  # type: ignore[no-any-return]
