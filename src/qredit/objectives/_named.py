"""The decorator that lets a finished method remember how it was asked for."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec

from qredit.objective import Objective

P = ParamSpec("P")


def named(make: Callable[P, Objective]) -> Callable[P, Objective]:
    """Set `text` of the objective to the call that made it, arguments at their defaults left out: `garl(q=0.75)`."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Objective:
        given = signature.bind(*args, **kwargs).arguments
        shown = [f"{k}={v!r}" for k, v in given.items() if v != signature.parameters[k].default]
        return replace(make(*args, **kwargs), text=f"{make.__name__}({', '.join(shown)})")

    return made
