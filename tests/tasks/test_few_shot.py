"""Worked examples before every prompt: read from a file, put behind a system message."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from qredit.runs import lifecycle
from qredit.runs.load import load_examples
from qredit.runs.options import TrainOptions
from qredit.runs.train import train
from qredit.tasks.base import Example
from qredit.tasks.few_shot import read_few_shot
from qredit.tasks.prompt_text import add_instructions
from qredit.utils.errors import QreditError
from tests.support.folders import data_file, model_folder, rows

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
        ("nothing", r"few_shot: .*shots\.json, line 1: not JSON"),
        ("[]", r"few_shot: .*shots\.json: empty, there are no records in it"),
        ("[" * 100_000, r"few_shot: .*shots\.json: JSON that is nested too deeply"),
        ("[1]", "must hold messages with a role and content"),
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


@pytest.mark.e2e
def test_a_file_that_is_gone_at_the_end_costs_no_model(tmp_path, monkeypatch):
    """The card names the worked examples; they are read before the first step."""
    shots, take_steps = written(tmp_path, json.dumps(SHOTS)), lifecycle._take_steps

    def lose_the_file(*given):
        Path(shots).unlink()
        take_steps(*given)

    monkeypatch.setattr(lifecycle, "_take_steps", lose_the_file)
    options = TrainOptions(
        task="jsonl", data=str(data_file(tmp_path / "own.jsonl", rows(8))), few_shot=shots, steps=1, m=2, cpu=True,
        model=str(model_folder(tmp_path / "model", chat=True)), prompts_per_step=2, max_completion_length=6,
        answer_budget=2, save_every=0,
    )  # fmt: skip
    train(options, tmp_path / "run", Console(quiet=True))
    assert "Two and two." in (tmp_path / "run" / "final" / "README.md").read_text()
