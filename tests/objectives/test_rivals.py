"""Rivals of J_Q that learn from the gold answer alone: worked groups, cold groups, and official numbers."""

import math
from dataclasses import replace

import pytest
import torch

from qredit.objectives import garl, jepo, logprob
from qredit.objectives.parsing import parse
from qredit.utils.errors import QreditError
from tests.support.batches import likelihood_batch

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


def test_latro_takes_the_divergence_of_the_whole_rationale_off_the_reward():
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


def test_the_floor_bounds_what_a_lone_likelihood_would_make_infinite():
    log_w = [-3.0, -torch.inf, -torch.inf]
    for floor in (5.0, 50.0, 700.0):
        credit = jepo(floor=floor).credit(likelihood_batch(log_w))[:, Z]
        assert credit.tolist() == pytest.approx([3 * math.log(math.expm1(floor) / 3 + 1), *[3 * math.log(2 / 3)] * 2])


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


def test_a_row_whose_likelihood_is_zero_is_left_out_of_the_log_probabilities():
    credit = logprob().credit(likelihood_batch([-1.0, -torch.inf, -3.0]))
    assert credit[:, Z].tolist() == [2.0, 0.0, -2.0]
    assert credit[:, Y].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("logprob(beta=-0.1)", "beta must be a number between 0 and inf, got -0.1"),
        ("logprob(sft=-1)", "sft must be a number between 0 and inf, got -1"),
        ("jepo(floor=-1)", "floor must be a number between 0 and 700, got -1"),
        ("jepo(floor=701)", "floor must be a number between 0 and 700, got 701"),
    ],
)
def test_what_is_refused_names_the_thing(text, words):
    with pytest.raises(QreditError, match=words):
        parse(text)
