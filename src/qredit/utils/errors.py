"""The one exception a user is meant to read: a single line that names the thing, the value and the choices."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


class QreditError(ValueError):
    """Something the user gave cannot be used. The message is one line; the command line prints it and exits with 2."""


def find_nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that a name was most likely meant for; None where none is near."""
    return next(iter(difflib.get_close_matches(name, list(choices), n=1)), None)


def unknown_name_error(kind: str, name: str, choices: Iterable[str]) -> QreditError:
    """The error for a name that is not among `choices`, with the nearest one first when there is one.

    >>> print(unknown_name_error("objective", "gral", ["garl", "grpo", "paft"]))
    unknown objective 'gral'; did you mean 'garl'? Choices: garl, grpo, paft

    Args:
        kind: what the names are, such as objective.
        name: as it was given.
        choices: names that there are.
    """
    names = sorted(choices)
    nearest = find_nearest(name, names)
    hint = "" if nearest is None else f"did you mean '{nearest}'? "
    return QreditError(f"unknown {kind} '{name}'; {hint}Choices: {', '.join(names)}")


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number of at least `least`.

    Args:
        name: what errors call it.
        value: as it was given.
        least: the smallest that may be given.

    Raises:
        QreditError: names the argument, the least it may be and what was given.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise QreditError(f"{name} must be a whole number, at least {least}, got {value!r}")


def check_names(kind: str, given: Iterable[str], choices: Collection[str]) -> None:
    """Refuse names that are not among `choices`.

    Args:
        kind: as `unknown_name_error`.
        given: names as they were given.
        choices: names that there are.

    Raises:
        QreditError: the first of them that is not there.
    """
    for name in given:
        if name not in choices:
            raise unknown_name_error(kind, str(name), choices)


def look_up(kind: str, name: str, registry: Mapping[str, Entry]) -> Entry:
    """What a registry holds under a name; `kind` says in the error what its entries are.

    Args:
        kind: what its entries are, such as task.
        name: as it was given.
        registry: name → entry.

    Raises:
        QreditError: it holds nothing under that name; see `unknown_name_error`.
    """
    if name not in registry:
        raise unknown_name_error(kind, name, registry)
    return registry[name]
