"""Scores of samples, one per file, for `best_of(SCORE)` and `weighted_majority(SCORE)`.

A file of this folder is a score: it defines one `Score`, named as the file.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.selection.protocol import Score

SCORES: Mapping[str, type[Score]] = MappingProxyType(
    {name: getattr(importlib.import_module(f"{__name__}.{name}"), name) for _, name, _ in iter_modules(__path__)}
)
globals().update(SCORES)  # importing a file put the module under its name; the name is the score

__all__ = ["SCORES", *SCORES]
