"""MatchTIR's rewards of turns: how like a reference calls are, who is paired with whom, which rows are refused."""

import json
import math
from dataclasses import replace

import pytest

from qredit.cli.main import main
from qredit.environments.calls import MalformedCall, ToolCall
from qredit.fields import matched_calls
from qredit.fields.matched_calls import compute_similarity, match_calls, parse_calls
from qredit.rollouts.trajectory import Role, Segment
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout, tools
from tests.support.folders import SHORT, data_file, flags, lines, model_folder, rows


def call(name="f", **arguments):
    return ToolCall(name, arguments)


def written(one):
    return f"<tool_call>{json.dumps({'name': one.name, 'arguments': one.arguments})}</tool_call>"


@pytest.mark.parametrize(
    ("ours", "gold", "similarity"),
    [
        (call(x=1, y=2), call(x=1), 0.833),  # the sheet's numbers
        (call(x=1, y=2), call(x=1, y=3), 0.75),
        (call(), call(), 1.0),
        (call("F", x=1), call(x=1), 1.0),
        (call("g", x=1), call(x=1), 0.0),
        (call(), call(x=1), 1 / 3),
        (call(y=None), call(x=None), 1 / 3),
    ],
)
def test_calls_of_a_tool_are_alike_by_arguments(ours, gold, similarity):
    assert compute_similarity(ours, gold) == pytest.approx(similarity, abs=6e-4)


def test_each_call_has_one_partner_the_likest_first():
    """The second is like the first reference, so the first is left the other one; the third calls nothing known."""
    golds = [call(x=1), call(x=2)]
    found = match_calls([call(x=3), call(x=1), call("g"), MalformedCall("no JSON"), call(x=1)], golds)
    assert found == pytest.approx([2 / 3, 1.0, 0.0, 0.0, 0.0])
    assert match_calls([call(x=1)], []) == [0.0]


def episode(speech, *said, calls, reward=0.25):
    """Turns that say this, each thinking before and answered by a tool, the last ended by its mark."""
    segments = []
    for turn, text in enumerate(said):
        last = turn == len(said) - 1
        segments.append(Segment(speech.ids(written(call(x=1))), Role.THINK, True, turn=turn))
        segments.append(Segment(speech.ids(text, *["<end>"] * last), Role.ANSWER, True, turn=turn))
        segments += [] if last else [Segment(speech.ids("seen"), Role.OBSERVATION, False, turn=turn)]
    one = rollout(speech, (), reward=reward)
    return replace(one, segments=tuple(segments), example={**one.example, "calls": calls})


def test_turns_are_paid_for_calls_and_the_last_for_the_answer():
    """Two calls of which one has a partner, an unreadable one, words, the answer; what was thought calls nothing."""
    speech, golds = Spoken(), [{"name": "f", "arguments": {"x": 1, "y": None}}, {"name": "g"}]
    both = written(call(x=1)) + written(call("h"))
    one = episode(speech, both, "<tool_call>{", "Hm.", "It is 4.", calls=golds)
    asked = {"name": "g", "parameters": {}}
    two = episode(speech, json.dumps(asked), calls=json.dumps(golds))
    found = matched_calls().make([one, two, replace(one, reward=math.nan)], tools(speech)[0])["turn_reward"]
    assert found[0] == [0.5] * 3 + [0.0] * 6 + [0.25] * 3
    assert found[1] == [1.0] * 3, "a last turn that calls is paid for that"
    assert found[2][:9] == found[0][:9]
    assert math.isnan(found[2][-1])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "calls must be a list, or its JSON, got '3'"),
        ("{", "calls must be a list, or its JSON, got '{'"),
        ([{"arguments": {}}], "a call is {'name': …, 'arguments': {…}}, got"),
        ([{"name": "f", "arguments": [1]}], "a call is {'name': …, 'arguments': {…}}, got"),
        (["f"], "a call is {'name': …, 'arguments': {…}}, got 'f'"),
    ],
)
def test_calls_that_cannot_be_read_are_refused(value, told):
    with pytest.raises(QreditError) as raised:
        matched_calls().check_examples([Example("?", None, id="b", columns={"calls": value})])
    assert str(raised.value).startswith(f"matched_calls, row b: {told}")
    assert parse_calls([], "") == []
    assert parse_calls([{"name": "f", "parameters": {"x": 1}}], "") == [call(x=1)]
    with pytest.raises(QreditError, match="reads column 'calls', which row 0 lacks; has: none"):
        matched_calls().check_examples([Example("?", None)])
    with pytest.raises(QreditError, match="column of matched_calls must be a name"):
        matched_calls(column="")


@pytest.mark.e2e
def test_a_run_with_tools_is_paid_by_a_column(tmp_path, capsys):
    """The column comes to the maker; a row without it is refused before anything is written."""
    given = {"task": "jsonl", "objective": "matchtir()", "tools": "tests.support.episodes:add", **SHORT, "m": 4}
    given |= {"model": model_folder(tmp_path / "model", max_position_embeddings=1024), "save_every": 0}
    given |= {"max_turns": 2, "observation_budget": 80}
    given |= {"data": data_file(tmp_path / "rows.jsonl", rows(calls=lambda n: [{"name": "add"}] * (n % 3)))}
    words = ["train", "--quiet", "--cpu", "--field", "turn_reward=matched_calls()"]
    assert main([*words, *flags(**given, output=tmp_path / "run")]) == 0
    assert "loss" in lines(tmp_path / "run" / "metrics.jsonl")[0]
    data_file(tmp_path / "rows.jsonl", rows())
    assert main([*words, *flags(**given, output=tmp_path / "other")]) == 2
    assert "reads column 'calls'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
