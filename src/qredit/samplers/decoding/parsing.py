"""The text form of rules: what `qredit eval --decode` takes.

    budget_forcing(times=2)
    by_difficulty(pilot=4, alpha=0.75, beta=0.3, gamma=0.5)

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.objectives.parsing import read_expression
from qredit.samplers.decoding import REGISTRY
from qredit.samplers.decoding.protocol import Decoding
from qredit.utils.errors import QreditError


@cache  # options are looked at several times
def parse_decoding(text: str) -> Decoding:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    rule = read_expression(text, REGISTRY, "decode", "rule of decoding")
    if not isinstance(rule, Decoding):
        raise QreditError(f"draw {text!r} is no rule; rules: {', '.join(sorted(REGISTRY))}")
    return rule
