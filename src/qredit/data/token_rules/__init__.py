"""Rules by which fine-tuning leaves tokens out, one per file, for `qredit sft --keep-tokens RULE(…)`.

A file of this folder is a rule: it defines one `TokenRule`, named as the file. `parsing` and `protocol` are none.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.data.token_rules.protocol import TokenRule

REGISTRY: Mapping[str, type[TokenRule]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, _ in iter_modules(__path__)
        if name not in ("parsing", "protocol")
    }
)
# Importing a file put the module under its name; `from qredit.data.token_rules import entropy_sft` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "TokenRule", *REGISTRY]
