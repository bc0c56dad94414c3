"""Optimisers that transformers has no name for, one per file, for `--optimizer RULE(…)`.

A file of this folder is a rule: it defines one `OptimizerRule`, named as the file. `joined`, `parsing` and `protocol`
are none.
"""

from collections.abc import Mapping

from qredit.engine.optimizers.protocol import OptimizerRule
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[OptimizerRule]] = collect_namesakes(__name__, __path__, ("joined", "parsing", "protocol"))
# Importing a file put the module under its name; `from qredit.engine.optimizers import muon` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "OptimizerRule", *REGISTRY]
