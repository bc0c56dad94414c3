"""Rules by which episodes branch, one per file, for `--branching RULE(…)`.

A file of this folder is a rule: it defines one `Branching`, named as the file. `parsing` and `protocol` are none.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.environments.branching.protocol import Branching

REGISTRY: Mapping[str, type[Branching]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, _ in iter_modules(__path__)
        if name not in ("parsing", "protocol")
    }
)
# Importing a file put the module under its name; `from qredit.environments.branching import trees` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Branching", *REGISTRY]
