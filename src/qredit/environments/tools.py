"""Plain Python functions as tools, by TRL's convention: types in the signature, and a docstring in Google's style."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qredit.rollouts.format import Prompt
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error, to_one_line

EXAMPLE = "example"
_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


@dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    Attributes:
        name: as the model calls it.
        function: what is run; it may be `async`.
        schema: its JSON schema, as chat templates show it.
        reads_example: it is given the row of data as `example`, which the model neither sees nor sets.
    """

    name: str
    function: Callable[..., Any] = field(repr=False)
    schema: Mapping[str, Any] = field(repr=False)
    reads_example: bool = False

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The schema of its parameters."""
        return self.schema["function"]["parameters"]  # type: ignore[no-any-return]

    def find_fault(self, arguments: Mapping[str, Any]) -> str | None:
        """Why these arguments cannot be passed, in words for the model; None where they can."""
        known, required = self.parameters.get("properties", {}), self.parameters.get("required", ())
        for name in arguments:
            if name not in known:
                return f"{self.name} has no parameter {to_one_line(name)[:60]!r}; it has {', '.join(known) or 'none'}"
        for name in required:
            if name not in arguments:
                return f"{self.name} needs the parameter {name!r}"
        for name, value in arguments.items():
            fault = _find_kind_fault(known[name], value)
            if fault is not None:
                return f"parameter {name!r} of {self.name} must be {fault}"
        return None


def _find_kind_fault(schema: Mapping[str, Any], value: Any) -> str | None:
    """What a value should be by its schema, where it is not; schemas of several kinds let everything pass."""
    choices = schema.get("enum")
    if choices is not None and value not in choices:
        return f"one of {', '.join(map(repr, choices))}"
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _KINDS or (value is None and schema.get("nullable")):
        return None
    fits = isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
    return None if fits else f"a JSON {kind}"


def make_tool(function: Any) -> Tool:
    """The tool that a function is. A parameter `example` behind a * is given the row of data that is asked.

    Raises:
        QreditError: no function with a name, a parameter without a type or a description, no docstring.
    """
    from transformers.utils.chat_template_utils import get_json_schema  # here: it takes long to import

    name = getattr(function, "__name__", type(function).__name__)
    if not (inspect.isfunction(function) or inspect.ismethod(function)) or name == "<lambda>":
        raise QreditError(f"tool {name} must be a function with a name, got {type(function).__name__}")
    if not (inspect.getdoc(function) or "").strip():
        raise QreditError(f"tool {name} has no docstring; the model is told by it what the tool does")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise QreditError(f"tool {name}: {parameter} cannot be passed by name; write its parameters out")
    try:
        schema = get_json_schema(function)
    except Exception as error:  # its own exceptions, and whatever type hints raise when they are read
        raise QreditError(
            f"tool {name} needs a type and a line under Args: for each parameter: {to_one_line(summarize_error(error))}"
        ) from None
    own = inspect.signature(function).parameters.get(EXAMPLE)
    if own is None or own.kind is not own.KEYWORD_ONLY:
        return Tool(name, function, schema)
    return Tool(name, function, _hide_example(schema), reads_example=True)


def _hide_example(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema without the parameter that the model does not set."""
    told = schema["function"]["parameters"]
    shown = {**told, "properties": {name: one for name, one in told["properties"].items() if name != EXAMPLE}}
    if "required" in told:
        shown["required"] = [name for name in told["required"] if name != EXAMPLE]
    return {**schema, "function": {**schema["function"], "parameters": shown}}


def make_tools(functions: Iterable[Any]) -> tuple[Tool, ...]:
    """The tools that some functions are.

    Raises:
        QreditError: as `make_tool`; two of one name, or none.
    """
    found = tuple(make_tool(function) for function in functions)
    names = [tool.name for tool in found]
    for name in names:
        if names.count(name) > 1:
            raise QreditError(f"two tools are called {name}")
    if not found:
        raise QreditError("tools: give one function at least")
    return found


def describe_tools(prompt: Prompt, tools: Sequence[Tool]) -> Prompt:
    """The prompt with the tools told in plain text, for models without a chat template that tells them.

    Args:
        prompt: a text, or chat messages: then it stands in the last user message.
        tools: what may be called.
    """
    return append_text(prompt, tell_tools(tools))


def append_text(prompt: Prompt, text: str) -> Prompt:
    """The prompt with a text behind it, or behind its last user message.

    Raises:
        QreditError: messages without a user's text.
    """
    if isinstance(prompt, str):
        return f"{prompt}\n\n{text}"
    users = [number for number, message in enumerate(prompt) if message.get("role") == "user"]
    if not users or not isinstance(prompt[users[-1]].get("content"), str):
        raise QreditError("there is no user message with a text that something could be put behind")
    last = prompt[users[-1]]
    return [*prompt[: users[-1]], {**last, "content": f"{last['content']}\n\n{text}"}, *prompt[users[-1] + 1 :]]


def tell_tools(tools: Sequence[Tool]) -> str:
    """What a model reads of tools where no chat template tells them."""
    lines = ["You may call these tools:"]
    for tool in tools:
        properties = tool.parameters.get("properties", {})
        taken = ", ".join(f"{name}: {one.get('type', 'any')}" for name, one in properties.items())
        lines.append(f"{tool.name}({taken}): {' '.join(tool.schema['function']['description'].split())}")
    example = '<tool_call>{"name": NAME, "arguments": {PARAMETER: VALUE}}</tool_call>'
    return "\n".join([*lines, f"To call one, write {example}. Its result follows."])
