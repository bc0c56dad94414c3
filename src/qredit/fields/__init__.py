"""Makers of batch fields, one per file, for `--field NAME=maker(…)`: what objectives read and no forward pass tells.

A file of this folder is a maker: it defines one `FieldMaker`, named as the file.
"""

from collections.abc import Mapping

from qredit.rollouts.field_maker import FieldMaker
from qredit.utils.namesakes import collect_namesakes

# parsing imports REGISTRY from here, so it is no maker and cannot be read yet.
REGISTRY: Mapping[str, type[FieldMaker]] = collect_namesakes(__name__, __path__, ("parsing",))
# Importing a file put the module under its name; `from qredit.fields import planning_grams` is the maker.
globals().update(REGISTRY)

__all__ = ["REGISTRY", *REGISTRY]
