"""Finished methods, one per file, and the registry that the command line and the text form read.

A file of this folder is a method: it defines one `Method`, named as the file. Type checkers and editors, which cannot
see what is found while the program runs, read `__init__.pyi`, which `make catalog` writes.
"""

from collections.abc import Mapping
from typing import Any

from qredit.objectives._method import Method
from qredit.utils.namesakes import collect_namesakes

# parsing imports REGISTRY from here, so it is no method and cannot be read yet.
REGISTRY: Mapping[str, Method[Any]] = collect_namesakes(__name__, __path__, ("parsing",))
# Importing a file put the module under its name; `from qredit.objectives import garl` is the method.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Method", *REGISTRY]
