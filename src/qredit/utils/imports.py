"""A user's own objects by import path: stages, objectives, goals, rewards."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from qredit.utils.errors import QreditError


def import_object(path: str) -> Callable[..., Any]:
    """The user's object at an import path, `package.module:name` or `package.module.name`.

    A module that is not installed is looked for in the working folder too, as Python does for a script that lies there.

    Raises:
        QreditError: the module cannot be imported, has no such name, or the name is not callable.
    """
    module_name, _, name = path.rpartition(":" if ":" in path else ".")
    if not module_name or not name:
        raise QreditError(f"'{path}' is no import path; write package.module:name")
    try:
        found = getattr(_module(module_name), name)
    except Exception as error:  # whatever the user's module raises while it is imported
        kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        raise QreditError(f"cannot import '{path}': {kind}{next(iter(str(error).splitlines()), '')}") from error
    if not callable(found):
        raise QreditError(f"'{path}' is not callable")
    return found  # type: ignore[no-any-return]


def _module(name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # at the end: a file that lies there never hides an installed package
    return importlib.import_module(name)
