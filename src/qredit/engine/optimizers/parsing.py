"""The text form of rules: what `--optimizer` takes.

    muon(momentum=0.95)
    my_package.rules.shampoo(every=10)      a call of one's own that makes an `OptimizerRule`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.engine.optimizers import REGISTRY
from qredit.engine.optimizers.protocol import OptimizerRule
from qredit.objectives.parsing import read_kind


@cache  # options are looked at several times
def parse_optimizer(text: str) -> OptimizerRule:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_kind(text, REGISTRY, "optimizer", "optimiser", OptimizerRule)  # type: ignore[no-any-return]
