"""The text form of curricula: what `--curriculum` takes.

    success_band(0.2, 0.8)
    my_package.rules.shortest_first()      a call of one's own that makes a `Curriculum`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.curricula import REGISTRY
from qredit.curricula.protocol import Curriculum
from qredit.objectives.parsing import read_expression
from qredit.utils.errors import QreditError

_PARTS = ("columns", "make")


@cache  # options are looked at several times
def parse_curriculum(text: str) -> Curriculum:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    rule = read_expression(text, REGISTRY, "curriculum", "curriculum")
    if missing := [part for part in _PARTS if not hasattr(rule, part)]:
        raise QreditError(f"curriculum {text!r} makes no rule: {type(rule).__name__} has no {', '.join(missing)}")
    return rule  # type: ignore[no-any-return]
