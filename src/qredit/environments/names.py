"""Environments and tools that have a name: what --env and --tools take beside import paths."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from qredit import tasks
from qredit.environments.adapters import ADAPTERS
from qredit.tasks.base import Task
from qredit.tasks.pocket.search import make_search_task
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.extras import require_extras
from qredit.utils.imports import import_object


@dataclass(frozen=True)
class Named:
    """An environment or a tool of ours.

    Attributes:
        path: where it is imported from.
        tasks: what it can be used with; empty is any.
        extras: what must be installed.
        adapt: makes the task that is then asked; None leaves it as it is.
    """

    path: str
    tasks: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    adapt: Callable[[Any], Task] | None = field(default=None, repr=False)


ENVIRONMENTS: Mapping[str, Named] = {
    "pocket-search": Named(
        "qredit.environments.pocket:PocketSearch",
        tasks=("pocket-hotpot", "pocket-musique", "pocket-dial"),
        extras=("tools",),
        adapt=make_search_task,
    ),
}
TOOLS: Mapping[str, Named] = {
    "calculator": Named("qredit.environments.pocket:calculator"),
    "sql": Named("qredit.environments.pocket:sql", tasks=("pocket-finqa", "jsonl")),
}


def find_environment(text: str) -> Callable[..., Any]:
    """What makes the environments that --env names: one of ours, one of another package as NAME:…, or an import path.

    Raises:
        QreditError: an unknown name, a path that cannot be imported, an extra that is not installed.
    """
    prefix, _, rest = text.strip().partition(":")
    if prefix in ADAPTERS:
        require_extras(f"environment {text.strip()}", prefix)
        return ADAPTERS[prefix].find(rest)
    return _find("environment", text.strip(), ENVIRONMENTS)


def find_tools(text: str) -> list[Callable[..., Any]]:
    """The functions that --tools names.

    Raises:
        QreditError: as `find_environment`.
    """
    return [_find("tool", name, TOOLS) for name in _split(text)]


def check_names(env: str | None, tools: str | None, task: str) -> None:
    """Refuse a name that there is not, and one that does not go with the task. Nothing is imported.

    Args:
        env, tools: as they are given to the options of these names.
        task: name of the task.

    Raises:
        QreditError: names it, and what it goes with.
    """
    apart = env is None or env.strip().partition(":")[0] in ADAPTERS  # goes with any task
    asked = [] if env is None or apart else [("environment", env.strip(), ENVIRONMENTS)]
    asked += [("tool", name, TOOLS) for name in _split(tools or "")]
    for kind, name, registry in asked:
        if not _is_path(name) and (fit := _look_up(kind, name, registry).tasks) and task not in fit:
            raise QreditError(f"{kind} {name} is for task {', '.join(fit)}; task is {task}")


def adapt_task(env: str | None, task: Task) -> Task:
    """The task as it is asked where an environment is played.

    Args:
        env: as it is given to --env.
        task: of the run.
    """
    named = None if env is None else ENVIRONMENTS.get(env.strip())
    return task if named is None or named.adapt is None else _adapt(named.adapt, task.name)


@cache  # a run asks for its task several times, and what is made of it keeps what it has read
def _adapt(adapt: Callable[[Any], Task], task: str) -> Task:
    return adapt(tasks.get(task))


def _find(kind: str, name: str, registry: Mapping[str, Named]) -> Callable[..., Any]:
    if _is_path(name):
        return import_object(name)
    named = _look_up(kind, name, registry)
    require_extras(f"{kind} {name}", *named.extras)
    return import_object(named.path)


def _look_up(kind: str, name: str, registry: Mapping[str, Named]) -> Named:
    if name not in registry:
        others = [f"{prefix}:NAME" for prefix in ADAPTERS] if registry is ENVIRONMENTS else []
        raise QreditError(
            f"{unknown_name_error(kind, name, [*registry, *others])}; one of your own is written package.module:name"
        )
    return registry[name]


def _is_path(name: str) -> bool:
    return ":" in name or "." in name


def _split(tools: str) -> Sequence[str]:
    return [name.strip() for name in tools.split(",") if name.strip()]
