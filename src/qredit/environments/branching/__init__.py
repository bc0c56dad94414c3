"""Rules by which episodes branch, one per file, for `--branching RULE(…)`.

A file of this folder is a rule: it defines one `Branching`, named as the file. `parsing` and `protocol` are none.
"""

from collections.abc import Mapping

from qredit.environments.branching.protocol import Branching
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[Branching]] = collect_namesakes(__name__, __path__, ("parsing", "protocol"))
# Importing a file put the module under its name; `from qredit.environments.branching import trees` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Branching", *REGISTRY]
