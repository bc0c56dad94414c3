"""Environments of other packages, one file each: what `--env NAME:…` finds, and objects that are played as they are.

A file of this folder defines one `adapter`. It is imported where its package is not installed, too.
"""

import importlib
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
    """What makes the same environments, those of another package wrapped; what cannot be called unchanged.

    An object is looked at when it is made: none is made for that alone, since one may hold a server or a game.

    Args:
        make: a class, or a function without parameters.
    """
    if not callable(make):  # said by whoever checks what makes environments
        return make

    def made() -> Any:
        one = make()
        fitting = next((adapter for adapter in ADAPTERS.values() if adapter.fits(type(one))), None)
        return one if fitting is None else fitting.wrap(one)

    made.__name__ = getattr(make, "__name__", type(make).__name__)
    return made
