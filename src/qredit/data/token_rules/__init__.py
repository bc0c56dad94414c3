"""Rules by which fine-tuning leaves tokens out, one per file, for `qredit sft --keep-tokens RULE(…)`.

A file of this folder is a rule: it defines one `TokenRule`, named as the file. `parsing` and `protocol` are none.
"""

from collections.abc import Mapping

from qredit.data.token_rules.protocol import TokenRule
from qredit.utils.namesakes import collect_namesakes

REGISTRY: Mapping[str, type[TokenRule]] = collect_namesakes(__name__, __path__, ("parsing", "protocol"))
# Importing a file put the module under its name; `from qredit.data.token_rules import entropy_sft` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "TokenRule", *REGISTRY]
