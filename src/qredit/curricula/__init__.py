"""Rules by which prompts are chosen, one per file, for `--curriculum RULE(…)`.

A file of this folder is a rule: it defines one `Curriculum`, named as the file. `parsing` and `protocol` are none.
"""

import importlib
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType

from qredit.curricula.protocol import Curriculum, CurriculumData

REGISTRY: Mapping[str, type[Curriculum]] = MappingProxyType(
    {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name)
        for _, name, _ in iter_modules(__path__)
        if not name.startswith("_") and name not in ("parsing", "protocol")
    }
)
# Importing a file put the module under its name; `from qredit.curricula import tiers` is the rule.
globals().update(REGISTRY)

__all__ = ["REGISTRY", "Curriculum", "CurriculumData", *REGISTRY]
