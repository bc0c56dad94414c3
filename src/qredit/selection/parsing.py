"""The text form of rules: what `qredit eval --select` takes.

    weighted_majority(answer_logp(), temperature=0.5)
    gen_select(endpoint(url='http://localhost:8000/v1/chat/completions', model='judge'), finalists=4)
    my_package.rules.shortest()       a call of one's own that makes a `Selection`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from qredit.objectives.parsing import read_kind
from qredit.selection import REGISTRY
from qredit.selection.judges import JUDGES
from qredit.selection.protocol import Selection
from qredit.selection.scores import SCORES

_NAMES: Mapping[str, Callable[..., Any]] = {**REGISTRY, **SCORES, **JUDGES}


@cache  # options are looked at several times, and a rule may load a model of its own
def parse_selection(text: str) -> Selection:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown name (with the nearest), a wrong argument, a rule without the judge or the score that it
            needs, a call of something else.
    """
    return read_kind(text, _NAMES, "select", "selection rule, score or judge", Selection)  # type: ignore[no-any-return]
