"""Rules that draw the samples of an evaluation, one per file, for `qredit eval --decode RULE(…)`.

A file of this folder is a rule: it defines one `Decoding`, named as the file. `parsing` and `protocol` are none.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.samplers.decoding.protocol import Decoding

REGISTRY: Mapping[str, type[Decoding]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, _ in iter_modules(__path__)
        if name not in ("parsing", "protocol")
    }
)
# Importing a file put the module under its name; `from qredit.samplers.decoding import budget_forcing` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Decoding", *REGISTRY]
