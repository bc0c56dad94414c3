"""Worked examples before every prompt: read from a file, put behind a system message."""

import json

import pytest

from qredit.runs.load import load_examples
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example
from qredit.tasks.few_shot import read_few_shot
from qredit.tasks.prompt_text import add_instructions
from qredit.utils.errors import QreditError
from tests.support.folders import data_file, rows

SHOTS = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "Two and two.\nAnswer:\n4"}]


def written(folder, text):
    path = folder / "shots.json"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("lines", [False, True])
def test_a_list_or_a_message_on_each_line(tmp_path, lines):
    text = "\n".join(map(json.dumps, SHOTS)) + "\n" if lines else json.dumps(SHOTS, indent=1)
    assert read_few_shot(written(tmp_path, text)) == SHOTS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing", "is no JSON list of messages"),
        ("[]", "must hold messages with a role and content"),
        ('[{"role": "user"}]', "must hold messages with a role and content"),
        (json.dumps(SHOTS[::-1]), "message 1 of .* is by 'assistant', not by 'user'"),
        (json.dumps([{"role": "system", "content": "Be brief."}, *SHOTS]), "message 1 of .* is by 'system'"),
        (json.dumps(SHOTS[:1]), "the last question of .* is not answered"),
    ],
)
def test_what_is_no_worked_example_gets_one_line(tmp_path, text, told):
    with pytest.raises(QreditError, match=told):
        read_few_shot(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(QreditError, match=r"few_shot: cannot read .*none\.json"):
        read_few_shot(str(tmp_path / "none.json"))


def test_they_stand_between_a_system_message_and_the_question():
    asked = {"role": "user", "content": "1 + 1?"}
    system = {"role": "system", "content": "Be brief."}
    plain = add_instructions(Example("1 + 1?", "2"), None, None, SHOTS)
    assert plain.prompt == [*SHOTS, asked]
    given = add_instructions(Example("1 + 1?", "2"), "Be brief.", "Only the number.", SHOTS)
    assert given.prompt == [system, *SHOTS, {"role": "user", "content": "1 + 1?\n\nOnly the number."}]
    assert add_instructions(Example([system, asked], "2"), None, None, SHOTS).prompt == [system, *SHOTS, asked]


def test_they_are_put_before_every_row(tmp_path):
    data = data_file(tmp_path / "own.jsonl", rows(3))
    options = TrainOptions(task="jsonl", data=str(data), few_shot=written(tmp_path, json.dumps(SHOTS)))
    assert all(one.prompt[:2] == SHOTS and len(one.prompt) == 3 for one in load_examples(options, "train"))


@pytest.mark.parametrize("changes", [{"task": "pocket-hotpot"}, {"task": "jsonl", "data": "x", "chat": False}])
def test_they_are_refused_where_they_cannot_be_read(tmp_path, changes):
    with pytest.raises(QreditError, match="few_shot"):
        TrainOptions(few_shot=written(tmp_path, json.dumps(SHOTS)), **changes)
