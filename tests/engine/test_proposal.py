"""Rationales from the policy shown the gold answer: their weight in the coefficients, and what a run makes of them."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from qredit.callbacks.credit_recorder import CreditRecorder
from qredit.control.auto_objective import replace_auto, resolve_objective
from qredit.control.diagnostics import collect_likelihood_stats, compute_likelihood_metrics
from qredit.core.batch import RolloutBatch
from qredit.core.hint import hint
from qredit.core.importance import mixture_weight, sequence_truncate
from qredit.core.schedule import auto
from qredit.engine.proposal import score_behind_hint
from qredit.engine.resume import deserialize_generation, serialize_generation
from qredit.objectives import garl, paft
from qredit.objectives.parsing import parse
from qredit.report.records import prepare_records
from qredit.runs.live_metrics import explain_wasted_proposal
from qredit.testing.batches import make_batch_for
from qredit.utils.errors import QreditError
from tests.engine.test_teachers import own, told
from tests.support.batches import likelihood_batch
from tests.support.marks import e2e
from tests.support.runs import first_step_gradients, questions, settings, trainer
from tests.support.tiny import model, tokenizer

HALF = hint(share=0.5)
TEMPLATE = "It is {answer}. {prompt}"
SHOWN = f"garl(q=0.75, proposal=hint(share=0.5, template={TEMPLATE!r}))"


def four_rows(log_p, log_r, log_w) -> RolloutBatch:
    """Two plain rows, then two hinted ones, of one rationale token each."""
    batch = likelihood_batch(log_w, rationale=1, forced=0, answer=1)
    columns = [torch.tensor([[value, 0.0] for value in values], dtype=torch.float64) for values in (log_p, log_r)]
    drawn = torch.tensor([False, False, True, True])
    return replace(batch, logp=columns[0], sampler_logp=None, proposal=drawn, extra={"logp@hint": columns[1]})


def test_the_weight_is_that_of_the_balance_heuristic():
    p, r = (0.5, 0.25, 0.01, 0.5), (0.1, 0.25, 0.9, 0.0)
    batch = four_rows([math.log(v) for v in p], [math.log(v) if v else -math.inf for v in r], [-1.0] * 4)
    expected = [own / (0.5 * own + 0.5 * other) for own, other in zip(p, r, strict=True)]
    assert mixture_weight().log(batch, "test").exp().tolist() == pytest.approx(expected)
    assert max(expected) == 2.0  # 1/(1-λ), where r is 0


def test_off_policy_the_weight_is_over_densities_when_sampled():
    mu, r, now = 0.2, 0.6, 0.3
    batch = four_rows([math.log(now)] * 4, [math.log(r)] * 4, [-1.0] * 4)
    batch = replace(batch, sampler_logp=torch.full_like(batch.logp, math.log(mu)))
    assert mixture_weight().log(batch, "test").exp().tolist() == pytest.approx([now / (0.5 * mu + 0.5 * r)] * 4)
    cut = mixture_weight(sequence_truncate(1.2)).log(batch, "test").exp()  # ρ = 1.5 is cut, μ over the mixture is not
    assert cut.tolist() == pytest.approx([1.2 * mu / (0.5 * mu + 0.5 * r)] * 4)


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("make", [garl, paft])
def test_without_hinted_rows_coefficients_are_todays_bit_by_bit(make, off_policy):
    for q in (0.0, 0.75, 1.0):
        mixed = make(q, proposal=HALF)
        batch = make_batch_for(mixed, 3)
        batch = replace(batch, proposal=torch.zeros_like(batch.proposal))
        batch = batch if off_policy else replace(batch, sampler_logp=None)
        assert torch.equal(mixed.credit(batch), make(q).credit(batch))
        assert make(q, proposal=hint(share=0.0)).source == make(q).source


def test_a_share_of_zero_has_the_gradients_of_a_run_without(tmp_path):
    none, zero = (
        first_step_gradients(trainer(tmp_path, text))
        for text in ("garl(q=0.75)", "garl(q=0.75, proposal=hint(share=0.0))")
    )
    assert all(torch.equal(none[name], zero[name]) for name in none)


def test_the_text_form_knows_proposals():
    objective = parse("garl(q=0.75, proposal=hint(share=0.5))")
    assert objective == garl(0.75, proposal=HALF)
    assert str(garl(0.75, proposal=HALF)) == "garl(q=0.75, proposal=hint(share=0.5))"
    assert parse(str(paft(0.5, proposal=hint(0.25, TEMPLATE)))) == paft(0.5, proposal=hint(0.25, TEMPLATE))
    assert "proposal: hint(share=0.5)" in objective.expansion
    assert (objective | parse("garl(q=0.5)").source.spans[0][1].credits[0]).proposal == HALF
    with pytest.raises(QreditError, match="less than 1, got 1.5"):
        parse("garl(q=0.75, proposal=hint(share=1.5))")


WAYS = pytest.mark.parametrize("changes", [{}, {"shared_prefix": False}, {"rows_per_forward": 3}], ids=str)


@WAYS
@pytest.mark.parametrize("exact", [True, e2e(False)])
def test_hinted_rationales_are_trained_behind_the_plain_prompt(tmp_path, changes, exact):
    made = trainer(tmp_path, SHOWN, **changes)
    assert made.collator.exact_sampler
    made.collator = replace(made.collator, exact_sampler=exact)
    made.generations = replace(made.generations, collator=made.collator)
    first_step_gradients(made)
    rows = made._generation.microbatches[0].rows
    batch = rows.batch
    assert batch.proposal.tolist() == [False, False, True, True] * 2
    for row in range(8):
        prompt, completion = own(rows, row)
        text = tokenizer().decode(prompt)
        number = text.split()[2].strip("? ")
        assert text.startswith("What is")
        assert batch.group[row] == row // 4
        thought = batch.rationale[row][: len(completion)]
        shown = tokenizer()(f"It is {number}. {text}")["input_ids"]
        expected = told(made.model, shown, completion).gather(1, torch.tensor(completion)[:, None])[:, 0]
        found = batch.extra["logp@hint"][row, : len(completion)]
        assert torch.allclose(found[thought], expected[thought], atol=1e-4)
        plain = told(made.model, prompt, completion).gather(1, torch.tensor(completion)[:, None])[:, 0]
        assert not torch.allclose(plain[thought], expected[thought], atol=1e-2)


def test_the_sampler_saves_the_pass_over_rows_that_it_drew(tmp_path, monkeypatch):
    made, seen = trainer(tmp_path, SHOWN), []

    def counted(trajectories, tails, rows, forward, pad, exact):
        wrapped = replace(forward)
        object.__setattr__(wrapped, "layout", lambda part: seen.append(len(part.batch.mask)) or forward.layout(part))
        return score_behind_hint(trajectories, tails, rows, wrapped, pad, exact)

    monkeypatch.setattr("qredit.engine.collation.score_behind_hint", counted)
    first_step_gradients(made)
    assert seen == [4]


def test_rollouts_of_several_steps_keep_their_plain_density(tmp_path):
    made = trainer(tmp_path, SHOWN, num_iterations=2, max_steps=2)
    before = model()
    made.train()
    rows = made._generation.microbatches[0].rows
    for row in (1, 2):
        prompt, completion = own(rows, row)
        expected = told(before, prompt, completion).gather(1, torch.tensor(completion)[:, None])[:, 0]
        thought = rows.batch.rationale[row][: len(completion)]
        assert torch.allclose(rows.batch.sampler_logp[row, : len(completion)][thought], expected[thought], atol=1e-4)
    logs = [entry for entry in made.state.log_history if "proposal/ess" in entry]
    assert len(logs) == 2
    again = deserialize_generation(serialize_generation(made._generation)).microbatches[0].rows.batch
    assert torch.equal(again.proposal, rows.batch.proposal)
    assert torch.equal(again.extra["logp@hint"], rows.batch.extra["logp@hint"])


@pytest.mark.e2e
def test_a_run_logs_what_hints_are_worth_and_others_rewards(tmp_path):
    def reward(completions, **columns):
        return [float(number % 4 >= 2) for number in range(len(completions))]  # 1 where the answer was shown

    evaluated = questions(4)
    made = trainer(tmp_path, SHOWN, reward_funcs=reward, max_steps=2, eval_dataset=evaluated)
    made.train()
    entry = next(entry for entry in made.state.log_history if "proposal/ess" in entry)
    assert 1 <= entry["proposal/ess"] <= 4
    assert 0 < entry["proposal/weight_share"] < 1
    assert entry["proposal/log10_u"] <= math.log10(2) + 1e-6
    assert (entry["reward"], entry["groups/no_success"]) == (0.0, 1.0)
    found = made.evaluate()
    assert not any("proposal/" in name for name in found)  # nobody is shown the answer there
    assert found["eval_reward"] == 0.5


def test_the_share_of_the_weight_is_that_of_the_hinted_rows():
    batch = four_rows([-1.0, -1.0, -9.0, -9.0], [-9.0, -9.0, -1.0, -1.0], [-2.0, -2.0, -0.1, -0.1])
    facts = collect_likelihood_stats(garl(0.75, proposal=HALF), batch)
    u = torch.tensor([math.exp(a) / (0.5 * math.exp(a) + 0.5 * math.exp(b)) for a, b in ((-1, -9), (-9, -1))])
    w = torch.tensor([-2.0, -0.1]).exp()
    logged = compute_likelihood_metrics(0.75, facts)
    assert logged["proposal/weight_share"] == pytest.approx(float((u * w)[1] / (u * w).sum()), rel=1e-5)
    assert logged["proposal/ess"] == pytest.approx(float(2 * u.sum() ** 2 / u.square().sum()), rel=1e-5)
    assert logged["proposal/log10_u"] == pytest.approx(float(u[1].log10()), rel=1e-5)
    assert logged["p_hat/log10_q50"] == pytest.approx(float((u * w).mean().log10()), rel=1e-5)
    said = explain_wasted_proposal(logged)
    assert said.startswith("the proposal is wasted in this step: rationales drawn after the hint carry 0.2% of")
    assert explain_wasted_proposal({**logged, "proposal/weight_share": 0.3}) == ""
    assert explain_wasted_proposal({}) == ""


def test_what_cannot_be_drawn_is_refused_before_compute(tmp_path):
    with pytest.raises(QreditError, match="two at least"):
        trainer(tmp_path, "garl(q=0.75, proposal=hint(share=0.25))")
    long = f"garl(q=0.75, proposal=hint(share=0.5, template={'{prompt}{answer}' + 'the cat ' * 200!r}))"
    with pytest.raises(QreditError, match=r"16 of 16 prompts with the hint do not fit \(rows 0, 1, 2, 3, 4, …"):
        trainer(tmp_path, long)
    with pytest.raises(QreditError, match="'hint' is the policy behind the prompt"):
        trainer(tmp_path, SHOWN, teachers={"hint": model(seed=5)})


def test_what_steers_a_run_keeps_its_proposal():
    left = garl(auto(), proposal=HALF)
    assert resolve_objective(left, "paft", 0.5) == paft(0.5, proposal=HALF)
    assert resolve_objective(left, "garl", 0.5) == garl(0.5, proposal=HALF)
    assert replace_auto(left, 0.25) == garl(0.25, proposal=HALF)


def test_a_guide_judges_a_hinted_row_by_its_weight():
    """After the hinted rows the answer is likelier, but without a hint they are hardly ever drawn: plain ones count."""
    log_p, log_r, log_w = [-1.0, -1.0, -30.0, -30.0], [-30.0, -30.0, -1.0, -1.0], [-9.0, -9.0, -1.0, -1.0]
    facts = collect_likelihood_stats(garl(0.5, proposal=HALF), four_rows(log_p, log_r, log_w))
    assert facts["largest"].tolist() == pytest.approx([(math.log(2.0) - 9.0) / math.log(10)])
    assert 10 ** (facts["largest"] - facts["p_hat"]) <= 4  # no row has more than the group's sum


@pytest.mark.e2e
def test_a_guided_run_begins_without_hints_and_takes_them_later(tmp_path):
    made = trainer(tmp_path, "garl(q=auto(), proposal=hint(share=0.5))", max_steps=1)
    made.train()
    assert made.current_objective().proposal == HALF
    assert made._generation.microbatches[0].rows.batch.proposal.sum() == 4


def test_credit_of_hinted_rows_is_recorded_as_theirs_alone(tmp_path):
    recorder = CreditRecorder(tmp_path / "credit.jsonl", 1, tokenizer())
    trainer(tmp_path, SHOWN, callbacks=[recorder], max_steps=1).train()
    entry = json.loads((tmp_path / "credit.jsonl").read_text().splitlines()[0])
    assert [one.get("hinted", False) for one in entry["rollouts"]] == [False, False, True, True]
    (found,) = prepare_records(SimpleNamespace(steps=1, credit=[entry]), ("garl(q=0.75)",))
    assert [one["hinted"] for one in found["rollouts"]] == [False, False, True, True]
    assert "drawn with the gold answer in the prompt" in found["beside"][0]["why"]


def test_paft_draws_by_the_weight_of_the_mixture(tmp_path):
    made = trainer(tmp_path, f"paft(q=0.75, proposal=hint(share=0.5, template={TEMPLATE!r}))", max_steps=2)
    made.train()
    assert all(torch.isfinite(p).all() for p in made.model.parameters())
    assert settings(tmp_path).num_generations == 4
