"""Judges of samples, one per file, for `pairwise(JUDGE)`, `gen_select(JUDGE)` and `judge_score(JUDGE)`.

A file of this folder is a judge: it defines one `Judge`, named as the file. `protocol` and `games` are none.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.selection.judges.protocol import Judge

JUDGES: Mapping[str, type[Judge]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, _ in iter_modules(__path__)
        if name not in ("protocol", "games")
    }
)

__all__ = ["JUDGES", "Judge"]
