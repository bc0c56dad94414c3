"""Reward functions as the trainer calls them: what they return is checked, once, where it comes from."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from qredit.errors import QreditError


def checked_reward(function: Any) -> Any:
    """A TRL reward function that refuses NaN and infinite rewards by its own name; models and ids pass unchanged.

    None is allowed: the row is then not scored. Async functions stay async.

    Raises:
        QreditError: (when called) a non-finite reward, with the function and the row.
    """
    if not callable(function) or hasattr(function, "parameters"):
        return function
    name = getattr(function, "__name__", type(function).__name__)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def checked_async(*args: Any, **kwargs: Any) -> Sequence[float | None]:
            return _finite(await function(*args, **kwargs), name, kwargs.get("id"))

        return checked_async

    def checked(*args: Any, **kwargs: Any) -> Sequence[float | None]:
        return _finite(function(*args, **kwargs), name, kwargs.get("id"))

    return _named_like(function, checked, name)


def _named_like(function: Callable[..., Any], checked: Callable[..., Any], name: str) -> Callable[..., Any]:
    checked.__name__ = name
    checked.__doc__ = function.__doc__
    return checked


def _finite(rewards: Sequence[float | None], name: str, ids: Sequence[Any] | None) -> Sequence[float | None]:
    for row, reward in enumerate(rewards):
        if reward is not None and not math.isfinite(reward):
            where = f"row {row}" if ids is None else f"row {row} (id {ids[row]!r})"
            raise QreditError(
                f"reward function '{name}' returned {reward!r} for {where}; return a finite number, or None "
                "for a row that is not to be scored"
            )
    return rewards
