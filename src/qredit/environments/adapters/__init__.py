"""Environments of other packages, one file each: what `--env NAME:…` finds, and objects that are played as they are.

A file of this folder defines one `adapter`. It is imported where its package is not installed, too.
"""

import importlib
import inspect
from collections.abc import Mapping
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

from qredit.environments.adapters._adapter import Adapter

__all__ = ["ADAPTERS", "Adapter", "adapt_factory"]

_FOUND: list[Adapter] = [
    importlib.import_module(f"{__name__}.{name}").adapter
    for _, name, _ in iter_modules(__path__)
    if not name.startswith("_")
]
ADAPTERS: Mapping[str, Adapter] = MappingProxyType({one.name: one for one in _FOUND})


def adapt_factory(make: Any) -> Any:
    """What makes environments, where it makes those of another package; anything else unchanged.

    Args:
        make: a class, or a function without parameters.
    """
    try:
        kind = make if inspect.isclass(make) else type(make())
    except Exception:  # said by whoever checks what makes environments
        return make
    fitting = next((one for one in ADAPTERS.values() if one.fits(kind)), None)
    if fitting is None:
        return make
    wrap = fitting.wrap

    def made() -> Any:
        return wrap(make())

    made.__name__ = getattr(make, "__name__", kind.__name__)
    return made
