"""Rules that choose one of several sampled answers, one per file, for `qredit eval --select RULE(…)`.

A file of this folder is a rule: it defines one `Selection`, named as the file. `parsing`, `protocol` and `outcome` are
none. Scores and judges that rules take lie in the folders of these names.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.selection.protocol import Selection

REGISTRY: Mapping[str, type[Selection]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, is_folder in iter_modules(__path__)
        if not is_folder and name not in ("parsing", "protocol", "outcome")
    }
)
# Importing a file put the module under its name; `from qredit.selection import majority` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Selection", *REGISTRY]
