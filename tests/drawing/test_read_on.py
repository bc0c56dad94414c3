"""read_on: the text behind a prompt as a row of its own, which is learned from and compared with nothing."""

import math

import pytest
import torch
from datasets import Dataset

from qredit import QreditError
from qredit.cli.main import main
from qredit.data.encoding import PROMPT_IDS
from qredit.drawing import read_on
from qredit.objectives.parsing import parse
from qredit.runs.drawn_texts import check_drawn_fit
from tests.support.folders import SHORT, data_file, flags, model_folder, rows
from tests.support.runs import length_reward, trainer
from tests.support.tiny import tokenizer

OBJECTIVE = "rmt(weight=0.5, peak=1.0, budget=4.0, next_token=0.25)"
TEXTS = ["two and two", " Paris is big", "the cat", "ten one two"]


@pytest.fixture
def run(tmp_path):
    asked = {"prompt": [f"What is {n}? " for n in range(4)], "answer": list("0123"), "continuation": TEXTS}
    data = Dataset.from_dict(asked)
    return trainer(tmp_path, OBJECTIVE, reward_funcs=length_reward, drawing="read_on()", data=data)


def draw_one(run):
    run.prompts.next_generation()
    given = run.prompts.rows(run.prompts.share(run.prompts.asked), run.rollouts_per_prompt)
    drawn, _ = run.rule_sampler.sampled(given, 0, run.rollouts_per_prompt)
    return drawn, given


def test_the_last_row_of_a_group_is_the_text_behind_its_prompt(run):
    drawn, given = draw_one(run)
    plain = run.rollout_sampler.sampled(given, 0, run.rollouts_per_prompt)
    assert [one.group for one in drawn] == [n // 4 for n in range(8)]
    for number, (one, row) in enumerate(zip(drawn, given, strict=True)):
        assert one.prompt == tuple(row["prompt_ids"])
        assert one.reinforced == math.isnan(one.reward) == (number % 4 == 3)
        assert one.reinforced or one.ids == plain[number].ids
        if one.reinforced:
            ids = tuple(tokenizer()(row["continuation"]).input_ids)
            assert one.ids == ids
            assert [(segment.ids, segment.sampled) for segment in one.segments] == [(ids[:1], False), (ids[1:], True)]


def test_its_tokens_have_the_weight_and_no_say_in_the_group(run):
    """The asked token has none; the rollouts' advantages are those of a group without the row."""
    run.prompts.next_generation()
    run.model.train()
    (microbatch,) = run._new_generation().microbatches
    batch, value = microbatch.rows.batch, microbatch.credited.value
    texts = batch.extra["reinforced"]
    assert int(texts.sum()) == 2
    assert torch.equal(value[texts], torch.where(batch.sampled, 0.25, 0.0)[texts].to(value))
    assert not batch.sampled[texts][:, 0].any()
    own = batch.select(~texts)
    alone = parse("rmt(weight=0.5, peak=1.0, budget=4.0)").credit(own)
    assert torch.allclose(alone.to(value), value[~texts], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"m": 2}, "m must be at least 3, got 2"),
        ({"drawing": "read_on(by='')"}, "by must name a column, got ''"),
        ({"drawing": "read_on(by='told')"}, "unknown column of read_on(by='told')"),
        ({"drawing": "read_on(by='some')"}, "field 'some' must be text, not 7"),
        ({"drawing": "read_on(by='few')"}, "column 'few', which read_on(by='few') reads, is empty"),
        ({"drawing": "read_on(by='more.told')"}, "unknown column of read_on(by='more.told')"),
        ({"drawing": "read_on(by='ends')"}, "column 'ends' spells the control token '<end>'"),
        ({"objective": "grpo()"}, "grpo() does not read it"),
    ],
)
def test_texts_that_are_not_there_are_missed_at_once(options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("qredit.runs.train.load_trainable_model", None)
    columns = {"continuation": lambda n: "two", "some": lambda n: 7, "few": lambda n: "a" if n == 0 else None}
    columns |= {"more": lambda n: {"told": "two"}, "ends": lambda n: "two <end>"}
    given = {"task": "jsonl", "data": data_file(tmp_path / "asked.jsonl", rows(4, **columns)), **SHORT, "m": 4}
    given |= {"model": model_folder(tmp_path / "tiny"), "objective": OBJECTIVE, "drawing": "read_on()"} | options
    assert main(["train", *flags(**given)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_text_must_fit_the_context_behind_its_prompt():
    rows = Dataset.from_dict({PROMPT_IDS: [[1, 2], [1]], "told": ["two", "two and two"]})
    longest = 1 + len(tokenizer()("two and two").input_ids)
    check_drawn_fit(("told",), rows, tokenizer(), longest)
    check_drawn_fit(("told",), rows, tokenizer(), None)
    with pytest.raises(QreditError, match=f"1 of 2 texts do not fit .* {longest - 1} .*longest {longest} tokens"):
        check_drawn_fit(("told",), rows, tokenizer(), longest - 1)


def test_a_row_without_a_text_is_named_by_python_users_too():
    with pytest.raises(QreditError, match="column 'continuation' must hold the text behind each prompt, got None"):
        read_on()._read({}, None)
