"""Where no q helps the probe draws rationales with the gold answer in the prompt, and says what they are worth."""

import json
import math

import pytest
import torch

from qredit.cli.main import main
from qredit.core.hint import HINT_TEMPLATE
from qredit.objectives.parsing import parse
from qredit.probe import load, predict, recommend, summary
from qredit.probe.proposal import ProposalMeasurement, judge_proposal, measure_proposal
from qredit.probe.recommend import Case, advise_proposal
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError
from tests.support.folders import data_file, model_folder
from tests.support.tiny import model

M, K = 8, 4


def measured(plain, hinted, u, examples=16):
    """The same likelihoods in every group: log w of plain and of hinted rationales, and log u of the hinted ones."""
    log_w = torch.tensor([[plain] * (M - K) + [hinted] * K] * examples, dtype=torch.float64)
    log_u = torch.tensor([[math.log(2.0)] * (M - K) + [u] * K] * examples, dtype=torch.float64)
    return ProposalMeasurement(log_w, log_u, K)


def test_hinted_rationales_that_count_are_advised():
    found = judge_proposal(measured(plain=-30.0, hinted=-0.1, u=math.log(1e-4)))
    assert found.helps
    assert (found.taught, found.likelier) == (1.0, 1.0)
    assert found.share == pytest.approx(1.0, abs=1e-6)
    assert found.log10_p_hat == pytest.approx(math.log10(0.5e-4 * math.exp(-0.1)), abs=1e-3)
    said = summary.describe_proposal(found)
    assert said.startswith("4 of 8 rationales of 16 examples were drawn with the gold answer in the prompt. Their best")
    assert "So u·w carries signal" in said
    silent = torch.full((16, M), -math.inf, dtype=torch.float64)
    predicted = predict(silent, torch.zeros(16, M, dtype=torch.bool))
    advised = advise_proposal(recommend(predicted), found.q, M, HINT_TEMPLATE)
    assert advised.case is Case.HINTED
    assert parse(advised.objective).proposal.count(M) == K
    seen, follows = summary.describe_advice(predicted, advised)
    assert seen.startswith("No q will help at m = 8")
    assert follows.startswith(f"Train with {advised.objective} and m = 8: rationales drawn with the gold answer")


def test_what_the_plain_prompt_never_draws_is_called_wasted():
    found = judge_proposal(measured(plain=-30.0, hinted=-0.1, u=-80.0))
    assert not found.helps
    assert (found.taught, found.likelier) == (0.0, 1.0)
    assert "the plain prompt would hardly ever draw them" in summary.describe_proposal(found)


def test_a_hint_that_leads_nowhere_is_called_so():
    found = judge_proposal(measured(plain=-30.0, hinted=-30.0, u=math.log(2.0)))
    assert not found.helps
    assert "make the answer no likelier" in summary.describe_proposal(found)
    nothing = judge_proposal(measured(plain=-math.inf, hinted=-math.inf, u=0.0))
    assert not nothing.helps
    assert "make the answer no likelier" in summary.describe_proposal(nothing)


def test_both_densities_are_those_of_the_two_prompts(tmp_path):
    options = TrainOptions(
        task="jsonl",
        data=str(data_file(tmp_path / "rows.jsonl")),
        model=str(model_folder(tmp_path / "model")),
        max_completion_length=10,
        answer_budget=3,
        cpu=True,
        reward="exact_match",
    )
    subject = load(options, 6)
    found = measure_proposal(subject, 4, 0, "It is {answer}. {prompt}", rows_per_batch=8)
    assert found.log_w.shape == found.log_u.shape == (6, 4)
    assert found.hinted == 2
    assert float(found.log_u.max()) <= math.log(2.0) + 1e-9
    assert float(found.log_u.min()) < math.log(2.0) - 1e-3  # the two prompts differ
    with pytest.raises(QreditError, match="none of 6 prompts fits the context with the hint"):
        measure_proposal(subject, 4, 0, "{prompt}{answer}" + "the cat " * 300)


def test_the_command_tries_hinted_rationales_where_no_q_helps(tmp_path, capsys):
    folder = model_folder(tmp_path / "model")
    deaf = model(tie_word_embeddings=False)
    torch.nn.init.zeros_(deaf.lm_head.weight)  # every token is as likely as any other, whatever stands before
    deaf.save_pretrained(folder)
    argv = ["probe", "--task", "jsonl", "--data", str(data_file(tmp_path / "rows.jsonl")), "--model", str(folder)]
    argv += ["--m", "4", "--examples", "6", "--max-completion-length", "8", "--answer-budget", "3", "--cpu", "--quiet"]
    assert main([*argv, "--json", "--hint-template", "{prompt} It is {answer}."]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["advice"]["case"] == "unreachable"
    assert (told["proposal"]["hinted"], told["proposal"]["m"], told["proposal"]["taught"]) == (2, 4, 0.0)
    assert any("Proposals will not help either" in notice for notice in told["notices"])
    assert main([*argv, "--hint-template", "{prompt}"]) == 2
    assert "must hold {answer}" in capsys.readouterr().err
