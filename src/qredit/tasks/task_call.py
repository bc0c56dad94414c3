"""A task as it is written: NAME, FAMILY:NAME, or either with arguments in brackets, as in `path-star(degree=5)`."""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qredit.utils.errors import QreditError

_CALL = re.compile(r"(?P<name>[\w:.-]+)\s*(?:\((?P<arguments>.*)\))?", re.DOTALL)


@dataclass(frozen=True)
class TaskCall:
    """A task's name, the family's member that it stands for, and its arguments.

    Attributes:
        name: "path-star" of `path-star(degree=5)`, "reasoning-gym" of `reasoning-gym:chain_sum`.
        member: what follows the colon; None without one.
        arguments: constants by name.
    """

    name: str
    member: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The call as it is written, arguments in the order of their names."""
        name = self.name if self.member is None else f"{self.name}:{self.member}"
        given = ", ".join(f"{key}={value!r}" for key, value in sorted(self.arguments.items()))
        return f"{name}({given})" if given else name


def parse_task_call(text: str, what: str = "task") -> TaskCall:
    """The parts of a task as it is written. Arguments are Python constants, and nothing is evaluated.

    Args:
        text: NAME, or NAME(key=value, …).
        what: what is written so, for errors.

    Raises:
        QreditError: it is not written so.
    """
    found = _CALL.fullmatch(text.strip())
    if found is None:
        raise QreditError(f"{what} '{text}' cannot be read; write NAME, or NAME(key=value, …)")
    name, colon, member = found["name"].partition(":")
    arguments = {} if found["arguments"] is None else _constants(f"{what} '{text}'", found["arguments"])
    return TaskCall(name, member if colon else None, arguments)


def check_arguments(subject: str, function: Callable[..., Any], arguments: Mapping[str, Any], given: int = 0) -> None:
    """Refuse arguments that a function does not take, and too few.

    Args:
        subject: what errors call the call.
        function: what is to be called.
        arguments: by name.
        given: how many of its first parameters are not the caller's to give.

    Raises:
        QreditError: names what is wrong, and the parameters that there are.
    """
    takes = inspect.signature(function)
    try:
        takes.bind(*[None] * given, **arguments)
    except TypeError as error:
        listed = ", ".join(list(takes.parameters)[given:]) or "none"
        raise QreditError(f"{subject}: {error}; it takes {listed}") from None


def _constants(subject: str, arguments: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"_({arguments})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):  # "a(x=1)(y=2)" is a call of a call
            raise ValueError("not constants by name")
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("arguments are given by name")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.args[0] if isinstance(error, ValueError) and len(str(error)) < 40 else "not constants by name"
        raise QreditError(f"{subject}: {said}; write NAME(key=value, …) with numbers, texts and lists") from None
