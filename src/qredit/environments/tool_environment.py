"""The environment that tools are: calls are run and their results shown, and a turn without a call is the answer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qredit.environments.calls import CallForm, FoundCall, MalformedCall
from qredit.environments.protocol import Step
from qredit.environments.tool_worker import MOST_CHARACTERS, SECONDS, ToolFault, ToolResult, ToolWorker
from qredit.environments.tools import EXAMPLE, Tool
from qredit.utils.sanitize import to_one_line

CALLS_PER_TURN = 8
_FAULTS: Mapping[ToolFault, str] = {
    ToolFault.ERROR: "tool_errors",
    ToolFault.TIMEOUT: "tool_timeouts",
    ToolFault.DIED: "tool_errors",
}


@dataclass(frozen=True)
class ToolSet:
    """Tools with the process that runs them, shared by all episodes.

    Attributes:
        tools: what may be called.
        form: how calls are written.
        seconds: the most that one call may take.
    """

    tools: tuple[Tool, ...]
    form: CallForm
    seconds: float = SECONDS

    @cached_property
    def worker(self) -> ToolWorker:
        """The process."""
        return ToolWorker({tool.name: tool.function for tool in self.tools}, self.seconds)

    @cached_property
    def by_name(self) -> Mapping[str, Tool]:
        """The tools by their names."""
        return {tool.name: tool for tool in self.tools}

    def make(self) -> "ToolEnvironment":
        """An environment for one episode."""
        return ToolEnvironment(self.by_name, self.form, self.worker.call)


@dataclass
class ToolEnvironment:
    """One episode with tools. Every call is answered: by its result, or by what was wrong with it.

    Step.info counts tool_calls (those that were run), tool_errors, tool_timeouts, malformed_calls (unreadable, of an
    unknown tool, or with wrong arguments), and long_results (cut).

    Attributes:
        tools: what may be called, by name.
        form: how calls are written.
        run: gives what a call of a tool, by its name, with arguments that fit, results in.
    """

    tools: Mapping[str, Tool]
    form: CallForm
    run: Callable[[str, Mapping[str, Any]], ToolResult]
    counts: Counter[str] = field(default_factory=Counter)
    example: Mapping[str, Any] = field(default_factory=dict)

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Nothing is said before the question."""
        self.example = example
        return Step()

    def step(self, action: str) -> Step:
        """Run the calls of a text, in order. Without a call the text is the answer, and the episode is over."""
        calls = self.form.find(action)
        if not calls:
            return Step(done=True)
        self.counts = Counter()
        messages = [self._answer(call) for call in calls[:CALLS_PER_TURN]]
        if len(calls) > CALLS_PER_TURN:
            self.counts["malformed_calls"] += len(calls) - CALLS_PER_TURN
            messages.append(_message("tool", f"error: only the first {CALLS_PER_TURN} calls of a turn are run"))
        return Step(messages, info=dict(self.counts))

    def close(self) -> None:
        """Nothing is held: the process serves other episodes."""

    def _answer(self, call: FoundCall) -> dict[str, Any]:
        if isinstance(call, MalformedCall):
            return self._refuse("tool", call.reason)
        tool = self.tools.get(call.name)
        if tool is None:
            shown = to_one_line(call.name)[:60]
            return self._refuse("tool", f"there is no tool {shown!r}; there are {', '.join(self.tools)}")
        fault = tool.find_fault(call.arguments)
        if fault is not None:
            return self._refuse(tool.name, fault)
        self.counts["tool_calls"] += 1
        given = {EXAMPLE: dict(self.example)} if tool.reads_example else {}
        result = self.run(tool.name, {**call.arguments, **given})
        if result.fault is not None:
            self.counts[_FAULTS[result.fault]] += 1
            return _message(tool.name, f"error: {result.text}")
        if len(result.text) > MOST_CHARACTERS:
            self.counts["long_results"] += 1
            return _message(tool.name, f"{result.text[:MOST_CHARACTERS]} [cut]")
        return _message(tool.name, result.text)

    def _refuse(self, name: str, reason: str) -> dict[str, Any]:
        self.counts["malformed_calls"] += 1
        return _message(name, f"error: {reason}")


def _message(name: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": text, "tool_call_id": "a1b2c3d4e"}


def list_schemas(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The schemas of tools, as a chat template takes them."""
    return [dict(tool.schema) for tool in tools]
