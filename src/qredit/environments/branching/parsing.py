"""The text form of rules: what `--branching` takes.

    trees(roots=2, nodes=2)
    my_package.rules.widest(k=3)      a call of one's own that makes a `Branching`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.environments.branching import REGISTRY
from qredit.environments.branching.protocol import Branching
from qredit.objectives.parsing import read_rule

_PARTS = ("trains_prefix", "check_size", "count_roots", "decide")


@cache  # options are looked at several times
def parse_branching(text: str) -> Branching:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_rule(text, REGISTRY, "branching", "rule of branching", _PARTS)  # type: ignore[no-any-return]
