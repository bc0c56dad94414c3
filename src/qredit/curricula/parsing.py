"""The text form of curricula: what `--curriculum` takes.

    success_band(0.2, 0.8)
    my_package.rules.shortest_first()      a call of one's own that makes a `Curriculum`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.curricula import REGISTRY
from qredit.curricula.protocol import Curriculum
from qredit.objectives.parsing import read_rule

_PARTS = ("columns", "make")


@cache  # options are looked at several times
def parse_curriculum(text: str) -> Curriculum:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_rule(text, REGISTRY, "curriculum", "curriculum", _PARTS)  # type: ignore[no-any-return]
