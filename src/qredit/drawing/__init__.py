"""Rules by which the rollouts of a generation are drawn, one per file, for `--drawing RULE(…)`.

A file of this folder is a rule: it defines one `Drawing`, named as the file. `parsing` and `protocol` are none.
"""

from collections.abc import Mapping

from qredit.drawing.protocol import Drawing
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[Drawing]] = collect_namesakes(__name__, __path__, ("parsing", "protocol"))
# Importing a file put the module under its name; `from qredit.drawing import hold_entropy` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Drawing", *REGISTRY]
