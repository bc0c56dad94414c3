"""Reward functions whose returned numbers are checked where they come from: finite, one for each row, or None."""

import contextlib
import functools
import inspect
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error


def add_reward_checks(function: Any, name: str | None = None) -> Any:
    """A TRL reward function that refuses NaN and infinite rewards by its own name; models and ids pass unchanged.

    None is allowed: the row is then not scored. Async functions stay async.

    Args:
        name: its name in logs and errors; None keeps its own.

    Raises:
        QreditError: (when called) the function fails, with the line where; a reward that is no finite number, with the
            row; more or fewer rewards than rows.
    """
    if not callable(function) or hasattr(function, "parameters"):
        return function
    known = name or str(getattr(function, "__name__", type(function).__name__))
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):

        async def checked_async(*args: Any, **kwargs: Any) -> Sequence[float | None]:
            with _name_errors(known):
                rewards = await function(*args, **kwargs)
            return _check_finite(rewards, known, kwargs)

        return _like(function, checked_async, known)

    def checked(*args: Any, **kwargs: Any) -> Sequence[float | None]:
        with _name_errors(known):
            rewards = function(*args, **kwargs)
        return _check_finite(rewards, known, kwargs)

    return _like(function, checked, known)


def reads_gold(function: Any) -> bool:
    """Whether a reward function reads the column `answer`: our scorers say so, others have a parameter of that name
    that must be given. A model or its id reads texts alone."""
    said = getattr(function, "reads_gold", None)
    if said is not None or not callable(function) or hasattr(function, "parameters"):
        return bool(said)
    try:
        own = inspect.signature(function).parameters.get("answer")
    except ValueError:  # a built-in one
        return False
    return own is not None and own.default is own.empty


def _like(function: Any, checked: Any, name: str) -> Any:
    functools.update_wrapper(checked, function, assigned=("__doc__",), updated=())
    checked.__name__ = name
    checked.reads_gold = reads_gold(function)
    return checked


@contextlib.contextmanager
def _name_errors(name: str) -> Iterator[None]:
    """What a user's function raises, said with the function's name and the line where it happened."""
    try:
        yield
    except QreditError:
        raise
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise QreditError(
            f"reward function '{name}' failed: {type(error).__name__}: {summarize_error(error)} "
            f"({Path(at.filename).name}, line {at.lineno})"
        ) from error


def _check_finite(rewards: Any, name: str, given: Mapping[str, Any]) -> Sequence[float | None]:
    listed = rewards.tolist() if hasattr(rewards, "tolist") else rewards  # of a tensor or an array
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise QreditError(f"reward function '{name}' returned {type(rewards).__name__}; return a list of numbers")
    rows = given.get("completions")
    if rows is not None and len(listed) != len(rows):
        raise QreditError(f"reward function '{name}' returned {len(listed)} rewards for {len(rows)} completions")
    ids = given.get("id")
    for row, reward in enumerate(listed):
        if reward is None or _is_finite(reward):
            continue
        where = f"row {row}" if ids is None else f"row {row} (id {ids[row]!r})"
        raise QreditError(
            f"reward function '{name}' returned {reward!r} for {where}; return a finite number, or None "
            "for a row that is not to be scored"
        )
    return listed


def _is_finite(reward: Any) -> bool:
    try:
        return math.isfinite(reward)
    except (TypeError, ValueError, OverflowError):
        return False
