"""Rules by which rollouts are learned from again, one per file, for `--replay RULE(…)`.

A file of this folder is a rule: it defines one `ReplayRule`, named as the file. `memory`, `parsing`, `protocol`, `rows`
and `steps` are none.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.engine.replay.protocol import ReplayRule

REGISTRY: Mapping[str, type[ReplayRule]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, _ in iter_modules(__path__)
        if name not in ("memory", "parsing", "protocol", "rows", "steps")
    }
)
# Importing a file put the module under its name; `from qredit.engine.replay import spear` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "ReplayRule", *REGISTRY]
