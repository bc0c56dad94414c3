"""The public names with their signatures, as docs/api/index.md promises them. Run it to write tests/public_api.txt."""

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from qredit.objectives.parsing import NAMES
from tests.support.paths import TESTS

FILE = TESTS / "public_api.txt"
PACKAGES = (
    *("qredit", "qredit.objectives", "qredit.objectives.parsing", "qredit.trl", "qredit.tasks", "qredit.data"),
    *("qredit.environments", "qredit.drawing", "qredit.fields"),
    *("qredit.rewards", "qredit.rewards.judge", "qredit.runs.options"),
    *("qredit.callbacks.collapse_guard", "qredit.callbacks.decisions", "qredit.callbacks.validation"),
    *("qredit.pocket", "qredit.probe", "qredit.testing.laws"),
)
"""Those of which `__all__` is public."""


def public_objects() -> dict[str, Any]:
    """The names of PACKAGES, by import path."""
    modules = [importlib.import_module(package) for package in PACKAGES]
    return {f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in module.__all__}


def parts_of_objectives() -> dict[str, Any]:
    """What else the text form of objectives knows, by its import path: stages, penalties, schedules and so on."""
    known = {id(thing) for thing in public_objects().values()}
    return {f"{thing.__module__}.{name}": thing for name, thing in NAMES.items() if id(thing) not in known}


def lines() -> list[str]:
    """One line for each public name, and for each member of a class that is not merely a part of objectives."""
    found = [line for path, thing in public_objects().items() for line in described(path, thing)]
    return sorted([*found, *(path + parameters(thing) for path, thing in parts_of_objectives().items())])


def described(path: str, thing: Any) -> Iterator[str]:
    """The line of a name; of a class, also of the public members that it or a base in this package defines."""
    if inspect.ismodule(thing):
        for name, value in vars(thing).items():
            if inspect.isfunction(value) and value.__module__ == thing.__name__ and not name.startswith("_"):
                yield path + "." + name + parameters(value)
    elif callable(thing):
        yield path + parameters(thing)
        yield from members(path, thing) if inspect.isclass(thing) and not of_trl(thing) else ()
    else:
        yield f"{path}: {type(thing).__name__}"


def members(path: str, kind: type) -> Iterator[str]:
    """The public methods and attributes of a class that its signature does not name."""
    own = [base for base in kind.__mro__ if base.__module__.startswith("qredit.")]
    names = {name for base in own for name in (*vars(base), *inspect.get_annotations(base)) if not name.startswith("_")}
    for name in sorted(names - set(_signature(kind))):
        member = inspect.getattr_static(kind, name, None)
        made = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        yield f"{path}.{name}{parameters(made) if inspect.isfunction(made) else ''}"


def parameters(thing: Any) -> str:
    """How it is called, without annotations: `(q, normalize=True, **kwargs)`."""
    shown = [_parameter(one) for one in _signature(thing).values()]
    return f"({', '.join(shown)})"


def of_trl(thing: Any) -> bool:
    """Whether it extends a class of TRL. Then TRL's documentation says what its members are."""
    return inspect.isclass(thing) and any(base.__module__.startswith("trl.") for base in thing.__mro__[1:])


def _signature(thing: Any) -> dict[str, inspect.Parameter]:
    """The parameters; of QreditConfig, which has all of TRL's fields, those that are its own."""
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return {}
    found = dict(inspect.signature(thing).parameters)
    if is_dataclass(thing) and of_trl(thing):
        found = {name: one for name, one in found.items() if name in inspect.get_annotations(thing)}
    return found


def _parameter(one: inspect.Parameter) -> str:
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    default = one.default
    shown = default.__name__ if inspect.isfunction(default) or inspect.isclass(default) else repr(default)
    return f"{stars}{one.name}" + ("" if default is one.empty else f"={shown}")


def text() -> str:
    """What the file holds."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
