"""Aviary's environments: their tools are told where they begin, and called by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.environments.adapters._adapter import Adapter
from qredit.environments.calls import MalformedCall, ToolCall, find_tagged
from qredit.environments.event_loop import run_coroutine
from qredit.environments.protocol import EnvironmentFactory, Step
from qredit.environments.tools import Tool, tell_tools
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.imports import import_object

COLUMN = "task"


@dataclass
class AviaryGame:
    """One environment of Aviary. What it says first are its messages and its tools.

    A row with a column `task` begins the environment's `from_task`. `Step.info` counts tool_calls and malformed_calls;
    a turn with a malformed call does nothing else.

    Attributes:
        kind: the class of the environment.
        game: one that is made already, for rows without a task.
    """

    kind: Any
    game: Any = None

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Its first messages and what may be called."""
        task = example.get(COLUMN)
        self.game = (self.game or self.kind()) if task is None else self.kind.from_task(task)
        said, tools = run_coroutine(self.game.reset())
        self.names = [tool.info.name for tool in tools]
        return Step(f"{_read(said)}\n\n{tell_tools([_describe(tool) for tool in tools])}")

    def step(self, action: str) -> Step:
        """What comes of the calls in a text."""
        from aviary.core import ToolCall as Call
        from aviary.core import ToolRequestMessage

        calls = find_tagged(action)
        bad = [self._find_fault(call) for call in calls]
        faults = [fault for fault in bad if fault is not None]
        if faults:
            return Step("\n".join(faults), reward=0.0, info={"malformed_calls": len(faults)})
        if not calls:
            said, reward, done, truncated = self.game.default_no_tool_calls_response
        else:
            read = [Call.from_name(one.name, **one.arguments) for one in calls if isinstance(one, ToolCall)]
            said, reward, done, truncated = run_coroutine(self.game.step(ToolRequestMessage(tool_calls=read)))
        return Step(
            _read(said),
            reward=float(reward),
            done=bool(done),
            truncated=bool(truncated) and not done,
            info={"tool_calls": len(calls)},
        )

    def close(self) -> None:
        """Close it."""
        if self.game is not None:
            run_coroutine(self.game.close())

    def _find_fault(self, call: ToolCall | MalformedCall) -> str | None:
        if isinstance(call, MalformedCall):
            return f"error: {call.reason}"
        return None if call.name in self.names else f"error: there is no such tool; there are {', '.join(self.names)}"


def _read(messages: Sequence[Any]) -> str:
    return "\n".join(str(message.content or "") for message in messages)


def _describe(tool: Any) -> Tool:
    info = tool.info.model_dump(mode="json", exclude_none=True)
    return Tool(info["name"], _not_called_here, {"type": "function", "function": info})


def _not_called_here() -> None:
    raise AssertionError("tools of Aviary are called by its environment")


def wrap(game: Any) -> AviaryGame:
    """An environment of Aviary as one of ours."""
    return AviaryGame(type(game), game)


def find(name: str) -> EnvironmentFactory:
    """What makes the environment that Aviary has under a name.

    Raises:
        QreditError: no such name, with the nearest; a package of Aviary's that is not installed.
    """
    from aviary.env import ENV_REGISTRY

    if name not in ENV_REGISTRY:
        raise unknown_name_error("environment of aviary", name, ENV_REGISTRY)
    try:
        kind = import_object(":".join(ENV_REGISTRY[name]))
    except QreditError as error:
        raise QreditError(f"aviary:{name} needs a package of its own (fhaviary[{name}]): {error}") from None
    return lambda: AviaryGame(kind)


adapter = Adapter("aviary", find, ("aviary.env", "Environment"), wrap)
