"""The text form of rules: what `--replay` takes.

    spear(buffer=32, baseline=32, steps=300, low=1, high=40)
    my_package.rules.best(k=3)      a call of one's own that makes a `ReplayRule`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.engine.replay import REGISTRY
from qredit.engine.replay.protocol import ReplayRule
from qredit.objectives.parsing import read_expression
from qredit.utils.errors import QreditError

_PARTS = ("tolerance", "groups", "keep", "choose", "factor", "make_objective")


@cache  # options are looked at several times
def parse_replay(text: str) -> ReplayRule:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    rule = read_expression(text, REGISTRY, "replay", "rule of replay")
    if missing := [part for part in _PARTS if not hasattr(rule, part)]:
        raise QreditError(f"replay {text!r} makes no rule: {type(rule).__name__} has no {', '.join(missing)}")
    return rule  # type: ignore[no-any-return]
