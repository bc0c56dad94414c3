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
        ({"objective": "grpo()", "guard": "rollback"}, "unknown value of qredit.guard 'rollback'; did you mean"),
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
        ("delta()", "needs hidden, which nothing fills on verl; train it on TRL"),
        ("empo()", "needs cluster, which nothing fills on verl"),  # a maker's
        ("siren(length=64)", "needs nucleus_entropy, which nothing fills on verl"),
        ("t_reg(strength=0.1)", r"with a teacher \(logp@better, logp@worse\), and verl tells logp@reference alone"),
        (
            "spine(kl=0.1, above=0.1, below=0.1)",
            r"with a teacher \(kl@reference\), and verl tells logp@reference alone",
        ),
        ("opsd()", "draws from a proposal, which is not done on verl; train it on TRL"),
        ("garl(q=0.75, proposal=hint(share=0.5))", "draws from a proposal, which is not done on verl"),
    ],
)
def test_objectives_that_verl_cannot_serve_are_refused(objective, told):
    with pytest.raises(QreditError, match=told):
        VerlSettings(objective=objective).make_objective()


def test_a_guard_takes_over_from_a_q_alone():
    with pytest.raises(QreditError, match="guard=paft takes over from GARL"):
        VerlSettings(objective="grpo()", guard="paft").make_objective()
    VerlSettings(objective="garl(q=0.75)", guard="paft").make_objective()


@pytest.mark.parametrize(("objective", "needed"), [("grpo() | kl_to_reference(0.04)", True), ("grpo()", False)])
def test_the_reference_model_is_verls(objective, needed):
    assert VerlSettings(objective=objective).needs_reference == needed


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
