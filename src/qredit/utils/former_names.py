"""Names of a former version that a module still answers to; they go with the next minor version."""

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def former_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` that leads from former names to today's, with a DeprecationWarning.

        __getattr__ = former_names(__name__, {"Budget": "TokenBudget"})

    Args:
        module: the module's import path.
        names: former name → today's, in the same module.

    Raises:
        AttributeError: by the function, for a name that the module never had.
    """

    def lead_on(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        now = names[name]
        warnings.warn(f"{module}.{name} is now {module}.{now}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], now)

    return lead_on
