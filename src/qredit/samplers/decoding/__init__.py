"""Rules that draw the samples of an evaluation, one per file, for `qredit eval --decode RULE(…)`.

A file of this folder is a rule: it defines one `Decoding`, named as the file. `parsing` and `protocol` are none.
"""

from collections.abc import Mapping

from qredit.samplers.decoding.protocol import Decoding
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[Decoding]] = collect_namesakes(__name__, __path__, ("parsing", "protocol"))
# Importing a file put the module under its name; `from qredit.samplers.decoding import budget_forcing` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Decoding", *REGISTRY]
