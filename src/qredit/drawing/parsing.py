"""The text form of rules: what `--drawing` takes.

    hold_entropy(target=0.5)
    my_package.rules.cold_half(temperature=0.7)      a call of one's own that makes a `Drawing`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.drawing import REGISTRY
from qredit.drawing.protocol import Drawing
from qredit.objectives.parsing import read_rule

_PARTS = ("fills", "independent", "check_size", "check_vocabulary", "draw")


@cache  # options are looked at several times
def parse_drawing(text: str) -> Drawing:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_rule(text, REGISTRY, "drawing", "rule of drawing", _PARTS)  # type: ignore[no-any-return]
