"""Tool calls as models write them: Hermes' and Qwen's tags, Llama's JSON, Mistral's list; and which one a template has.

    Hermes, Qwen   <tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call>
    Llama 3        {"name": "search", "parameters": {"query": "x"}}
    Mistral        [TOOL_CALLS][{"name": "search", "arguments": {"query": "x"}}]

A model without a chat template is told the first form in its prompt.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.rollouts.chat_template import SAMPLE_QUESTION, render_messages
from qredit.rollouts.tokenizer import Tokenizer
from qredit.utils.errors import QreditError

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_TAGGED = re.compile(rf"{OPEN}(.*?)(?:{CLOSE}|\Z)", re.DOTALL)
_MISTRAL = "[TOOL_CALLS]"
_PYTHON = "<|python_tag|>"
_NAME, _KEY, _VALUE, _RESULT = "qtoolname", "qargumentkey", "qargumentvalue", "qtoolresult"


@dataclass(frozen=True)
class ToolCall:
    """A call that can be read: whether there is such a tool is another question."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class MalformedCall:
    """Something that begins as a call does and cannot be read, with the reason."""

    reason: str


FoundCall = ToolCall | MalformedCall


@dataclass(frozen=True)
class CallForm:
    """A way of writing calls.

    Attributes:
        name: of the models that write it.
        find: the calls in a text, in order; none where it is an answer.
        end: the text that ends a turn of calls, for models that no end of turn would stop; None where one does.
    """

    name: str
    find: Callable[[str], Sequence[FoundCall]]
    end: str | None = None


def find_tagged(text: str) -> list[FoundCall]:
    """The calls between tags. A tag that is never closed is a malformed call."""
    found: list[FoundCall] = []
    for match in _TAGGED.finditer(text):
        if not match[0].endswith(CLOSE):
            found.append(MalformedCall(f"{OPEN} is not closed by {CLOSE}"))
        else:
            found.append(_read_json_call(match[1], ("arguments", "parameters")))
    return found


def find_llama(text: str) -> list[FoundCall]:
    """The call that is the whole text, as one JSON object with a name and parameters."""
    body = text.strip().removeprefix(_PYTHON).strip()
    if not body.startswith("{") or '"name"' not in body or '"parameters"' not in body:
        return []
    return [_read_json_call(body, ("parameters", "arguments"))]


def find_mistral(text: str) -> list[FoundCall]:
    """The calls behind the mark: a JSON list, or, as newer models write it, NAME[ARGS]{…} after each mark."""
    _, marked, body = text.partition(_MISTRAL)
    if not marked:
        return []
    if "[ARGS]" in body:
        return [_read_named(part) for part in body.split(_MISTRAL)]
    try:
        calls = json.loads(body.strip())
    except (ValueError, RecursionError):
        return [MalformedCall(f"what follows {_MISTRAL} is no JSON list")]
    if not isinstance(calls, list) or not calls:
        return [MalformedCall(f"what follows {_MISTRAL} is no JSON list of calls")]
    return [_read_object(call, ("arguments", "parameters")) for call in calls]


HERMES = CallForm("Hermes and Qwen", find_tagged)
LLAMA = CallForm("Llama", find_llama)
MISTRAL = CallForm("Mistral", find_mistral)
PLAIN = CallForm("plain text", find_tagged, end=CLOSE)
"""Hermes' form, told in the prompt: the closing tag ends the turn, for nothing else would."""


def find_any_form(text: str) -> Sequence[FoundCall]:
    """The calls of a text in the first form in which there are any; none where it is an answer."""
    return next((found for form in (HERMES, MISTRAL, LLAMA) if (found := form.find(text))), ())


def detect_call_form(tokenizer: Tokenizer, template: Mapping[str, Any] | None = None) -> CallForm:
    """The form that a chat template writes calls in.

    Args:
        tokenizer: of the model.
        template: switches of the chat template.

    Raises:
        QreditError: the template drops calls or their results, or writes them in a form that is not read here.
    """
    text = _render_exchange(tokenizer, template or {})
    missing = [mark for mark in (_NAME, _KEY, _VALUE, _RESULT) if text is None or mark not in text]
    if text is None or missing:
        lost = "refuses" if text is None else "leaves out"
        raise QreditError(
            f"the tokenizer's chat template {lost} tool calls or their results; those of Qwen 2.5 and 3, Hermes, "
            "Llama 3.1 and Mistral hold them. Set chat_template, or give plain texts as prompts"
        )
    before = text[: text.index(_RESULT)]
    call = before[max(before.index(_NAME) - 80, 0) :]
    for form, mark in ((HERMES, OPEN), (MISTRAL, _MISTRAL), (LLAMA, '"parameters"')):
        if mark in call and _NAME in str(form.find(_cut(call, form))):
            return form
    raise QreditError(
        "the tokenizer's chat template writes tool calls in a form that is not read here; those of Qwen 2.5 and 3, "
        "Hermes, Llama 3.1 and Mistral are. Give plain texts as prompts"
    )


def make_sample_call(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """An assistant's message with one call, as chat templates take it; nine letters of an id, which Mistral's asks for.

    Args:
        name: of the tool.
        arguments: of the call.
    """
    called = {"type": "function", "id": "a1b2c3d4e", "function": {"name": name, "arguments": dict(arguments)}}
    return {"role": "assistant", "content": "", "tool_calls": [called]}


def _render_exchange(tokenizer: Tokenizer, template: Mapping[str, Any]) -> str | None:
    """A question, a call and its result, as text; None where the template refuses them."""
    result = {"role": "tool", "name": _NAME, "content": _RESULT, "tool_call_id": "a1b2c3d4e"}
    switches = {name: value for name, value in template.items() if name != "tools"}  # a schema would hold names, too
    try:
        return render_messages(
            [SAMPLE_QUESTION, make_sample_call(_NAME, {_KEY: _VALUE}), result], tokenizer, start=False, **switches
        )
    except QreditError:
        return None


def _cut(text: str, form: CallForm) -> str:
    """The call alone, of a text that ends somewhere behind it."""
    if form is HERMES:
        return text[text.index(OPEN) :]
    if form is MISTRAL:
        return text[text.index(_MISTRAL) : text.index("}" if "[ARGS]" in text else "]", text.index(_VALUE)) + 1]
    return text[text.index("{", max(text.index(_NAME) - 12, 0)) : text.rindex("}") + 1]


def _read_named(part: str) -> FoundCall:
    name, _, arguments = part.partition("[ARGS]")
    try:
        return _read_object({"name": name.strip(), "arguments": json.loads(arguments)}, ("arguments",))
    except (ValueError, RecursionError):
        return MalformedCall("the arguments are no JSON object")


def _read_json_call(text: str, keys: Sequence[str]) -> FoundCall:
    try:
        return _read_object(json.loads(text.strip()), keys)
    except (ValueError, RecursionError):  # a model may nest brackets as deep as it likes
        return MalformedCall("the call is no JSON object")


def _read_object(value: Any, keys: Sequence[str]) -> FoundCall:
    """A call from what JSON held."""
    if not isinstance(value, dict):
        return MalformedCall("the call is no JSON object")
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return MalformedCall("the call has no name")
    arguments: Any = next((value[key] for key in keys if key in value), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        return MalformedCall("the arguments are no JSON object")
    return ToolCall(name, arguments)
