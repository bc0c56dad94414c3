"""Makers of batch fields, one per file, for `--field NAME=maker(…)`: what objectives read and no forward pass tells.

A file of this folder is a maker: it defines one `FieldMaker`, named as the file.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.rollouts.field_maker import FieldMaker

# parsing imports REGISTRY from here, so it is no maker and cannot be read yet.
_NAMES = [name for _, name, _ in iter_modules(__path__) if not name.startswith("_") and name != "parsing"]

REGISTRY: Mapping[str, type[FieldMaker]] = MappingProxyType(
    {name: getattr(importlib.import_module(f"{__name__}.{name}"), name) for name in _NAMES}
)
# Importing a file put the module under its name; `from qredit.fields import planning_grams` is the maker.
globals().update(REGISTRY)

__all__ = ["REGISTRY", *REGISTRY]
