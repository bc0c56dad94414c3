"""The text form of rules: what `--replay` takes.

    spear(buffer=32, baseline=32, steps=300, low=1, high=40)
    my_package.rules.best(k=3)      a call of one's own that makes a `ReplayRule`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.engine.replay import REGISTRY
from qredit.engine.replay.protocol import ReplayRule
from qredit.objectives.parsing import read_rule

_PARTS = ("tolerance", "groups", "keep", "choose", "factor", "make_objective")


@cache  # options are looked at several times
def parse_replay(text: str) -> ReplayRule:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_rule(text, REGISTRY, "replay", "rule of replay", _PARTS)  # type: ignore[no-any-return]
