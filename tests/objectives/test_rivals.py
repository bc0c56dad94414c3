"""Rivals of J_Q that learn from the gold answer alone: worked groups, cold groups, and official numbers."""

import math
import statistics
from dataclasses import replace

import pytest
import torch

from qredit import Objective, RolloutBatch
from qredit.credit.perplexity_rank import perplexity_rank
from qredit.objectives import garl, geometric_mean, jepo, logprob, nover, opsd, paft, rft, sft_answer, star
from qredit.objectives.parsing import parse
from qredit.utils.errors import QreditError
from tests.support.batches import likelihood_batch, reward_batch

Z, Y = 0, 3  # a column of the rationale, one of the gold answer
COLD = (-300.0, -303.0, -310.0, -301.0)


def with_reference(batch, drift):
    """The batch with log p and log p_ref of its two rationale tokens, `drift` apart in sum."""
    logp = torch.full(batch.mask.shape, -1.0, dtype=torch.float64)
    apart = torch.zeros_like(logp)
    apart[:, 0] = torch.tensor(drift)
    return replace(batch, logp=logp, extra={"logp@reference": logp - apart})


def test_the_log_probability_less_that_of_the_others():
    """log w = (-1, -2, -6): the others' means are -4, -3.5 and -1.5."""
    credit = logprob().credit(likelihood_batch([-1.0, -2.0, -6.0]))
    assert credit[:, Z].tolist() == [3.0, 1.5, -4.5]
    assert credit[:, Y].tolist() == [1.0, 1.0, 1.0]


def test_latro_takes_divergence_of_whole_rationale_off_reward():
    """kl_coef 0.05, log p - log p_ref = (2, -4, 0): r = (-1.1, -1.8, -6), the others' means -3.9, -3.55 and -1.45."""
    batch = with_reference(likelihood_batch([-1.0, -2.0, -6.0]), [2.0, -4.0, 0.0])
    credit = logprob(beta=0.05, sft=0.0).credit(batch)
    assert credit[:, Z].tolist() == pytest.approx([2.8, 1.75, -4.55])
    assert credit[:, Y].tolist() == [0.0] * 3
    assert logprob(beta=0.05, sft=0.25).credit(batch)[:, Y].tolist() == [0.25] * 3


def test_what_a_row_adds_to_the_log_of_the_mean():
    """w = (.4, .1, .1): w̄ = .2, the others' means .1, .25, .25; c = 3 log 2 and 3 log .8; a = 2, .5, .5."""
    credit = jepo().credit(likelihood_batch(torch.tensor([0.4, 0.1, 0.1]).log()))
    assert credit[:, Z].tolist() == pytest.approx([3 * math.log(2), 3 * math.log(0.8), 3 * math.log(0.8)])
    assert credit[:, Y].tolist() == pytest.approx([2.0, 0.5, 0.5])


@pytest.mark.parametrize("objective", [logprob(), jepo()], ids=str)
def test_a_cold_group_has_the_coefficients_of_a_warm_one(objective):
    warm = [value + 300 for value in COLD]
    cold, likely = (objective.credit(likelihood_batch(log_w)) for log_w in (COLD, warm))
    assert torch.allclose(cold, likely, rtol=1e-6)
    assert float(cold[:, Z].abs().min()) > 0.01
    assert float(garl(0.75).credit(likelihood_batch(COLD)).abs().max()) < 1e-30  # its coefficient underflows


def test_floor_bounds_what_lone_likelihood_would_make_infinite():
    log_w = [-3.0, -torch.inf, -torch.inf]
    for floor in (5.0, 50.0, 700.0):
        credit = jepo(floor=floor).credit(likelihood_batch(log_w))[:, Z]
        assert credit.tolist() == pytest.approx([3 * math.log(math.expm1(floor) / 3 + 1), *[3 * math.log(2 / 3)] * 2])


def test_a_tempered_likelihood_lifts_long_answers():
    """log w = -300 at q = 0.75 and τ = 0.1: what GARL gives to log w = -30, and a tenth of it on the answer."""
    long, short = likelihood_batch(COLD), likelihood_batch([value / 10 for value in COLD])
    credit, same = garl(0.75, temper=0.1).credit(long), garl(0.75).credit(short)
    assert torch.allclose(credit[:, Z], same[:, Z])
    assert torch.allclose(credit[:, Y], same[:, Y] / 10)
    assert float(credit[:, Z].max()) > 1e-5


def test_a_likelihood_to_the_power_of_one_is_the_objective():
    assert garl(0.75, temper=1.0) == garl(0.75)
    assert paft(0.75, temper=1.0) == paft(0.75)


def test_tempered_verifree_tends_to_the_log_probability_reward():
    batch = likelihood_batch([-1.0, -2.0, -6.0])
    credit = garl(0.0, normalize=False, temper=1e-6).credit(batch).double() / 1e-6
    assert torch.allclose(credit, logprob().credit(batch).double(), atol=1e-4)


def test_the_geometric_mean_does_not_fall_with_length():
    """Two tokens of log-probability -1, -2 on average, or twenty: r = (e^-1, e^-2), c = ±1/√2 but for epsilon."""
    for tokens in (2, 20):
        batch = likelihood_batch([-1.0 * tokens, -2.0 * tokens], answer=tokens)
        credit = geometric_mean().credit(batch)
        spread = (math.exp(-1) - math.exp(-2)) / math.sqrt(2)
        half = (math.exp(-1) - math.exp(-2)) / 2 / (spread + 1e-4)
        assert credit[:, Z].tolist() == pytest.approx([half, -half])
        assert credit[:, Y].tolist() == [0.0, 0.0]
    assert geometric_mean(pathwise=True).credit(batch)[:, Y].tolist() == [1.0, 1.0]


def test_the_control_trains_the_answer_alone():
    credit = sft_answer().credit(likelihood_batch([-1.0, -300.0]))
    assert credit.tolist() == [[0.0, 0.0, 0.0, 1.0, 1.0]] * 2


def test_rft_imitates_right_rollouts_as_they_are():
    batch = replace(reward_batch([1.0, 0.0, 1.0], lengths=[1, 3, 3]), sampler_logp=torch.zeros(3, 3))
    logp = torch.full((3, 3), -2.0, requires_grad=True)
    loss = rft().loss(logp, batch)
    assert float(loss.detach()) == pytest.approx(2.0)
    slope = torch.autograd.grad(loss, logp)[0]
    assert slope[0].tolist() == [-0.25, 0.0, 0.0]
    assert slope[1:].tolist() == [[0.0] * 3, [-0.25] * 3]


def test_a_group_of_one():
    """Log-prob keeps its reward without a baseline, which is unbiased; JEPO has nothing to compare with."""
    batch = likelihood_batch([-7.0])
    assert logprob().credit(batch)[0, [Z, Y]].tolist() == [-7.0, 1.0]
    assert jepo().credit(batch)[0, [Z, Y]].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("value", [-0.1, -300.7])
def test_equal_likelihoods_leave_no_residue(value):
    batch = likelihood_batch([value] * 3)
    for objective in (logprob(), jepo()):
        assert objective.credit(batch)[:, Z].tolist() == [0.0] * 3
        assert objective.credit(batch)[:, Y].tolist() == pytest.approx([1.0] * 3)


def test_a_row_of_likelihood_zero_has_no_log_probabilities():
    credit = logprob().credit(likelihood_batch([-1.0, -torch.inf, -3.0]))
    assert credit[:, Z].tolist() == [2.0, 0.0, -2.0]
    assert credit[:, Y].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("logprob(beta=-0.1)", "beta must be a number between 0 and inf, got -0.1"),
        ("logprob(sft=-1)", "sft must be a number between 0 and inf, got -1"),
        ("jepo(floor=-1)", "floor must be a number between 0 and 700, got -1"),
        ("garl(q=0.5, temper=0)", "power of a tempered likelihood must be above 0 and at most 1, got 0"),
        ("garl(q=0.5, temper=1.5)", "power of a tempered likelihood must be above 0 and at most 1, got 1.5"),
        ("paft(q=0.5, temper=-1)", "power of a tempered likelihood must be above 0 and at most 1, got -1"),
        ("tempered(2, reward())", "power of a tempered likelihood must be above 0 and at most 1, got 2"),
        ("tempered(0.5, garl(q=1))", "tempered takes a source, got garl"),
        ("jepo(floor=701)", "floor must be a number between 0 and 700, got 701"),
    ],
)
def test_what_is_refused_names_the_thing(text, words):
    with pytest.raises(QreditError, match=words):
        parse(text)


def test_nover_ranks_by_the_perplexity_that_a_fixed_model_has():
    """Nats per answer token .2, .3, .9, .1 after rationales of 1, 10, 100 and 1 tokens, the last of the wrong form.

    s = .2, .15, .3: R = (2/3, 1, 1/3). The third is longer than the first two and worse: E = (1/2, 1/2, 0).
    """
    lengths, nats = [1, 10, 100, 1], [0.2, 0.3, 0.9, 0.1]
    column = torch.arange(103).expand(8, 103)
    thought = torch.tensor(lengths).repeat_interleave(2)[:, None]
    gold = torch.tensor([True, False]).repeat(4)[:, None]
    tail = (column >= thought) & (column < thought + 2)
    told = torch.where(tail & gold, -torch.tensor(nats, dtype=torch.float64).repeat_interleave(2)[:, None], -9.0)
    batch = RolloutBatch(
        mask=column < thought + 2,
        rationale=column < thought,
        answer=tail & gold,
        response=tail & ~gold,
        group=torch.zeros(8, dtype=torch.long),
        rollout=torch.arange(4).repeat_interleave(2),
        reward=torch.where(gold[:, 0], torch.nan, torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat_interleave(2)),
        answer_logp=torch.zeros(8),
        extra={"logp@reference": told},
    )
    found, rewards = Objective(perplexity_rank()).evaluate(batch), [13 / 6, 5 / 2, 4 / 3, 0.0]
    assert found.value[1::2, 0].tolist() == pytest.approx(rewards)
    assert found.weight[:, 0].tolist() == [0.0, 1.0] * 4
    credit = nover().credit(batch)
    mean, spread = statistics.fmean(rewards), statistics.stdev(rewards) + 1e-4
    assert credit[1::2, 0].tolist() == pytest.approx([(r - mean) / spread for r in rewards])
    assert not bool(credit[0::2].any())


def test_nover_says_what_it_needs():
    batch = likelihood_batch([-1.0], reward=torch.ones(1), extra={"logp@reference": torch.zeros(1, 5)})
    with pytest.raises(QreditError, match="needs the batch field 'rollout'"):
        nover(beta=0.0).credit(batch)
    assert "logp@coach" in nover(teacher="coach").needs


def test_opsd_pulls_every_token_towards_the_policy_that_knows():
    """log p_T - log p = .5, 0 and -1 on one row's tokens: slopes -.5/3, 0 and 1/3 of the loss."""
    batch = reward_batch([0.0])
    logp = torch.tensor([[-1.0, -2.0, -0.5]], dtype=torch.float64, requires_grad=True)
    seen = replace(batch, logp=logp.detach(), extra={"logp@hint": torch.tensor([[-0.5, -2.0, -1.5]])})
    loss = opsd().loss(logp, seen)
    assert float(loss.detach()) == pytest.approx(-(0.5 * -1.0 + -1.0 * -0.5) / 3)
    assert torch.autograd.grad(loss, logp)[0].tolist() == [pytest.approx([-0.5 / 3, 0.0, 1 / 3])]


def test_star_takes_hinted_rollouts_of_unsolved_prompts_only():
    """Right: plain and hinted in the first group, a hinted one in the second, none in the third."""
    hinted = torch.tensor([False, True, False, True, False, True])
    batch = reward_batch([1.0, 1.0, 0.0, 1.0, 0.0, 0.0], group=[0, 0, 1, 1, 2, 2], proposal=hinted)
    assert star().credit(batch)[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert float(star().loss(torch.full((6, 3), -2.0), batch)) == pytest.approx(2.0)
    assert star().proposal.share == 0.5


def test_opsd_shows_the_answer_and_draws_nothing_behind_it():
    assert (opsd().proposal.share, "logp@hint" in opsd().needs) == (0.0, True)
    with pytest.raises(QreditError, match="must hold {answer}"):
        opsd(template="{prompt}")
