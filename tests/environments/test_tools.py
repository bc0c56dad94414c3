"""Tools: which functions are some, what a call may be, and a process that no call outlives."""

import os
import time
from functools import partial

import pytest

from qredit.environments.calls import HERMES
from qredit.environments.tool_environment import CALLS_PER_TURN, ToolSet
from qredit.environments.tool_worker import MOST_CHARACTERS, ToolFault, ToolWorker
from qredit.environments.tools import append_text, describe_tools, make_tool, make_tools
from qredit.utils.errors import QreditError
from tests.support.episodes import add, repeat


def undocumented(a: int):
    return a


def untyped(a):
    """Do it.

    Args:
        a: what.
    """


def half_documented(a: int, b: int):
    """Do it.

    Args:
        a: what.
    """


def open_ended(*numbers: int):
    """Do it.

    Args:
        numbers: all.
    """


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (undocumented, "tool undocumented has no docstring"),
        (untyped, "tool untyped needs a type and a line under Args"),
        (half_documented, "tool half_documented needs a type and a line under Args"),
        (open_ended, "numbers: int cannot be passed by name"),
        (lambda a: a, "must be a function with a name"),
        (partial(add, 1), "must be a function with a name, got partial"),
        (3, "must be a function with a name, got int"),
    ],
)
def test_what_is_no_tool_is_refused_in_one_line(function, message):
    with pytest.raises(QreditError, match=message) as found:
        make_tool(function)
    assert "\n" not in str(found.value)


def test_two_tools_of_one_name_and_none_are_refused():
    with pytest.raises(QreditError, match="two tools are called add"):
        make_tools([add, add])
    with pytest.raises(QreditError, match="give one function at least"):
        make_tools([])


def test_tools_are_told_in_the_prompt_or_its_last_user_message():
    told = describe_tools("How much?", make_tools([add]))
    assert told.startswith("How much?\n\nYou may call these tools:\nadd(a: integer, b: integer): Add two numbers.")
    messages = [{"role": "user", "content": "How much?"}, {"role": "assistant", "content": "so"}]
    assert describe_tools(messages, make_tools([add])) == [{"role": "user", "content": told}, messages[1]]
    with pytest.raises(QreditError, match="no user message"):
        append_text([{"role": "system", "content": "x"}], "y")


def call(name, **arguments):
    import json

    return f'<tool_call>{{"name": "{name}", "arguments": {json.dumps(arguments)}}}</tool_call>'


@pytest.fixture(scope="module")
def tools():
    found = ToolSet(make_tools([add, repeat]), HERMES, seconds=0.3)
    yield found
    found.worker.close()


@pytest.mark.parametrize(
    ("said", "text", "counts"),
    [
        (call("add", a=1, b=2), "3", {"tool_calls": 1}),
        (call("add", a=13, b=2), "error: ValueError: unlucky", {"tool_calls": 1, "tool_errors": 1}),
        (call("add", a=99, b=2), "error: no result within 0.3 seconds", {"tool_calls": 1, "tool_timeouts": 1}),
        (call("add", a=1), "error: add needs the parameter 'b'", {"malformed_calls": 1}),
        (call("add", a=1, b="2"), "error: parameter 'b' of add must be a JSON integer", {"malformed_calls": 1}),
        (call("add", a=1, b=True), "error: parameter 'b' of add must be a JSON integer", {"malformed_calls": 1}),
        (call("add", a=1, b=2, c=3), "error: add has no parameter 'c'; it has a, b", {"malformed_calls": 1}),
        (call("sub"), "error: there is no tool 'sub'; there are add, repeat", {"malformed_calls": 1}),
        ("<tool_call>{", "error: <tool_call> is not closed", {"malformed_calls": 1}),
    ],
)
def test_every_call_is_answered_and_counted(tools, said, text, counts):
    step = tools.make().step(f"let me see {said}")
    assert (step.done, step.reward, step.info) == (False, None, counts)
    (message,) = step.observation
    assert message["content"].startswith(text)
    assert message["role"] == "tool"


def test_what_is_too_much_is_cut_and_counted(tools):
    step = tools.make().step(call("repeat", text="x", times=MOST_CHARACTERS + 5))
    assert step.info == {"tool_calls": 1, "long_results": 1}
    assert step.observation[0]["content"] == "x" * MOST_CHARACTERS + " [cut]"
    step = tools.make().step(call("add", a=1, b=1) * (CALLS_PER_TURN + 2))
    assert step.info == {"tool_calls": CALLS_PER_TURN, "malformed_calls": 2}
    assert [one["content"] for one in step.observation[-2:]] == ["2", "error: only the first 8 calls of a turn are run"]


def test_a_turn_without_a_call_is_the_answer(tools):
    step = tools.make().step("four")
    assert (step.done, step.observation, step.info) == (True, "", {})


def hang(path: str) -> None:
    """Start a child that writes to a file, and hang."""
    import subprocess

    subprocess.Popen(["sh", "-c", f"sleep 1; touch {path}"])
    time.sleep(60)


def leave() -> None:
    """End the process."""
    os._exit(3)


async def wait(text: str) -> str:
    """Say it later."""
    return text


def test_a_process_that_hangs_or_dies_is_replaced(tmp_path):
    worker = ToolWorker({"hang": hang, "leave": leave, "wait": wait}, seconds=0.2)
    mark = tmp_path / "mark"
    start = time.perf_counter()
    assert worker.call("hang", {"path": str(mark)}).fault is ToolFault.TIMEOUT
    assert time.perf_counter() - start < 30, "it hangs for 60"
    worker.seconds = 30.0  # on a busy machine the others may take more than a hang was given
    assert worker.call("leave", {}).fault is ToolFault.DIED
    assert worker.call("wait", {"text": "yes"}).text == "yes"
    process = worker._process
    worker.close()
    assert not process.is_alive()
    time.sleep(1.0)
    assert not mark.exists(), "what a tool started ends with it"
    with pytest.raises(QreditError, match="tool_seconds must be more than 0"):
        ToolWorker({}, seconds=0)
