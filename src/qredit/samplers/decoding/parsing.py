"""The text form of rules: what `qredit eval --decode` takes.

    budget_forcing(times=2)
    by_difficulty(pilot=4, alpha=0.75, beta=0.3, gamma=0.5)

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.objectives.parsing import read_kind
from qredit.samplers.decoding import REGISTRY
from qredit.samplers.decoding.protocol import Decoding


@cache  # options are looked at several times
def parse_decoding(text: str) -> Decoding:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_kind(text, REGISTRY, "decode", "rule of decoding", Decoding)  # type: ignore[no-any-return]
