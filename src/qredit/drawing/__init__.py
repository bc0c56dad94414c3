"""Rules by which the rollouts of a generation are drawn, one per file, for `--drawing RULE(…)`.

A file of this folder is a rule: it defines one `Drawing`, named as the file. `parsing` and `protocol` are none.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.drawing.protocol import Drawing

REGISTRY: Mapping[str, type[Drawing]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, _ in iter_modules(__path__)
        if name not in ("parsing", "protocol")
    }
)
# Importing a file put the module under its name; `from qredit.drawing import hold_entropy` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Drawing", *REGISTRY]
