"""Optimisers that transformers has no name for, one per file, for `--optimizer RULE(…)`.

A file of this folder is a rule: it defines one `OptimizerRule`, named as the file. `joined`, `parsing` and `protocol`
are none.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.engine.optimizers.protocol import OptimizerRule

REGISTRY: Mapping[str, type[OptimizerRule]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, _ in iter_modules(__path__)
        if name not in ("joined", "parsing", "protocol")
    }
)
# Importing a file put the module under its name; `from qredit.engine.optimizers import muon` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "OptimizerRule", *REGISTRY]
