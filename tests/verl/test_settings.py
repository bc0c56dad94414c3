"""What a run on verl is told, and what is refused of it in one line before Ray starts."""

import pytest

from qredit.rollouts.sampling_params import TokenBudget
from qredit.utils.errors import QreditError
from qredit.verl.settings import VerlSettings
from tests.support.tiny import chat_tokenizer, tokenizer


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "give qredit.objective or qredit.objective_file"),
        ({"objective": "grpo()", "objective_file": "x"}, "give qredit.objective or qredit.objective_file"),
        ({"objectiv": "grpo()"}, "unknown key of qredit 'objectiv'; did you mean 'objective'?"),
        ({"objective": "grpo()", "format": {"closng": ""}}, "unknown key of qredit.format 'closng'; did you mean"),
        ({"objective": "grpo()", "aliases": "all"}, "unknown value of aliases 'all'"),
        ({"objective": "grpo()", "answer_budget": 0}, "qredit.answer_budget must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(given, told):
    with pytest.raises(QreditError, match=told.replace("?", r"\?")):
        VerlSettings.read(given)


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("grop()", "did you mean 'grpo'"),
        ("delta()", "needs .*which nothing fills on verl yet"),
        ("grpo() | kl_to_reference(0.04)", "needs logp@.*which nothing fills on verl yet"),
        ("garl(q=0.75, proposal=hint(share=0.5))", "which nothing fills on verl yet|draws from a proposal"),
    ],
)
def test_objectives_that_verl_cannot_serve_are_refused(objective, told):
    with pytest.raises(QreditError, match=told):
        VerlSettings(objective=objective).make_objective()


def test_the_run_may_choose_q():
    assert str(VerlSettings(objective="garl(q=auto())").make_objective()) == "garl(q=auto())"


def test_an_objective_may_stand_in_a_file(tmp_path):
    file = tmp_path / "objective.txt"
    file.write_text("grpo()\n")
    assert str(VerlSettings(objective_file=str(file)).make_objective()) == "grpo()"
    with pytest.raises(QreditError, match="cannot read qredit.objective_file"):
        VerlSettings(objective_file=str(tmp_path / "none")).make_objective()


def test_a_forced_closing_has_room_in_the_response():
    settings = VerlSettings(objective="grpo()", answer_budget=5)
    tokens = settings.format.make(tokenizer())
    closing = len(tokens.close_ids)
    assert settings.make_budget(20 + closing, tokens) == TokenBudget(thinking=15, answer=5)
    with pytest.raises(QreditError, match="data.max_response_length"):
        settings.make_budget(4 + closing, tokens)


def test_messages_are_the_prompt_where_there_is_a_template():
    settings = VerlSettings(objective="grpo()")
    one, two = [{"role": "user", "content": "1+1?"}], [{"role": "system", "content": "x"}]
    assert settings.format.prompt_of(one, chat_tokenizer()) == one
    assert settings.format.prompt_of(one, tokenizer()) == "1+1?"
    with pytest.raises(QreditError, match="a prompt of 2 messages needs a chat template"):
        settings.format.prompt_of([*one, *two], tokenizer())
    plain = VerlSettings.read({"objective": "grpo()", "format": {"chat": False}})
    assert plain.format.prompt_of(one, chat_tokenizer()) == "1+1?"
    with pytest.raises(QreditError, match="no chat template"):
        VerlSettings.read({"objective": "grpo()", "format": {"chat": True}}).format.prompt_of(one, tokenizer())
