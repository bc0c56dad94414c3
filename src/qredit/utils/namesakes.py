"""What the files of a folder define under their own names: how registries of one part per file are made."""

import importlib
from collections.abc import Collection, Iterable, Mapping
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any


def collect_namesakes(package: str, path: Iterable[str], others: Collection[str] = ()) -> Mapping[str, Any]:
    """By name, what each module of a package defines under the module's own name, such as `spear` of `spear.py`.

    Folders and modules whose name begins with an underscore are left out. Importing a module puts it under its name in
    the package; where the part itself is to stand there, the package updates its globals with what this gives.

    Args:
        package: `__name__` of the package.
        path: its `__path__`.
        others: modules that define no part. Those among them that import the registry are not imported.

    Raises:
        AttributeError: a module has nothing of its name.
    """
    return MappingProxyType(
        {
            name: getattr(importlib.import_module(f"{package}.{name}"), name)
            for _, name, is_package in iter_modules(path)
            if not is_package and not name.startswith("_") and name not in others
        }
    )
