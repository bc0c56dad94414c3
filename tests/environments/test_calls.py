"""Tool calls: the forms that are read, what cannot be read, and which form a chat template writes."""

import pytest

from qredit.environments.calls import (
    HERMES,
    LLAMA,
    MISTRAL,
    MalformedCall,
    ToolCall,
    detect_call_form,
    find_llama,
    find_mistral,
    find_tagged,
)
from qredit.utils.errors import QreditError
from tests.support import tiny
from tests.support.episodes import templated

CALL = ToolCall("add", {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("find", "text"),
    [
        (find_tagged, 'so\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'),
        (find_tagged, '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}</tool_call>'),
        (find_llama, '<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}'),
        (find_mistral, '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "x"}]'),
        (find_mistral, '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}'),
    ],
)
def test_each_form_is_read(find, text):
    assert find(text) == [CALL]


def test_several_calls_come_in_their_order():
    one, other = '<tool_call>{"name": "f"}</tool_call>', '<tool_call>{"name": "g"}</tool_call>'
    assert [call.name for call in find_tagged(f"{one} then {other}")] == ["f", "g"]
    assert [call.name for call in find_mistral("[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{}")] == ["f", "g"]


@pytest.mark.parametrize(
    ("find", "text", "reason"),
    [
        (find_tagged, '<tool_call>{"name": "add"', "not closed"),
        (find_tagged, "<tool_call>[]</tool_call>", "no JSON object"),
        (find_tagged, "<tool_call>" + "[" * 100_000 + "</tool_call>", "no JSON object"),
        (find_tagged, '<tool_call>{"name": 1}</tool_call>', "no name"),
        (find_tagged, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "arguments are no JSON object"),
        (find_tagged, '<tool_call>{"name": "f", "arguments": "{"}</tool_call>', "arguments are no JSON object"),
        (find_llama, '{"name": "f", "parameters": ', "no JSON object"),
        (find_mistral, "[TOOL_CALLS]f", "no JSON list"),
        (find_mistral, "[TOOL_CALLS][]", "no JSON list of calls"),
        (find_mistral, "[TOOL_CALLS]f[ARGS]x", "arguments are no JSON object"),
    ],
)
def test_what_cannot_be_read_is_a_malformed_call(find, text, reason):
    (found,) = find(text)
    assert isinstance(found, MalformedCall)
    assert reason in found.reason


def test_an_answer_is_no_call():
    for form in (HERMES, LLAMA, MISTRAL):
        assert form.find('four, or {"name": "x"} or {"a": 1}') == []


@pytest.mark.parametrize(
    ("name", "form"),
    [("qwen3", HERMES), ("qwen2_5", HERMES), ("llama3_1", LLAMA), ("llama3_2", LLAMA), ("mistral", MISTRAL)],
)
def test_the_form_of_a_chat_template_is_found(name, form):
    assert detect_call_form(templated(name)) is form


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (tiny.chat_tokenizer(), "leaves out tool calls or their results; those of Qwen 2.5 and 3"),
        (templated("llama3"), "leaves out tool calls"),
        (templated("gemma"), "refuses tool calls"),
        (templated("glm4moe"), "in a form that is not read here"),
    ],
    ids=["tiny", "llama3", "gemma", "glm4moe"],
)
def test_a_template_that_cannot_hold_tools_is_refused(tokenizer, message):
    with pytest.raises(QreditError, match=message) as found:
        detect_call_form(tokenizer)
    assert "\n" not in str(found.value)
