"""Finished methods, one per file, and the registry that the command line and the text form read.

A file of this folder is a method: it defines one `Method`, named as the file. Type checkers and editors, which cannot
see what is found while the program runs, read `__init__.pyi`, which `make catalog` writes.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

from qredit.objectives._method import Method

# parsing imports REGISTRY from here, so it is no method and cannot be read yet.
_NAMES = [name for _, name, _ in iter_modules(__path__) if not name.startswith("_") and name != "parsing"]

REGISTRY: Mapping[str, Method[Any]] = MappingProxyType(
    {name: getattr(importlib.import_module(f"{__name__}.{name}"), name) for name in _NAMES}
)
# Importing a file put the module under its name; `from qredit.objectives import garl` is the method.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Method", *REGISTRY]
