"""The likelihood stages against an independent evaluation in arbitrary precision, and at the edges of the range."""

import itertools
import math
from dataclasses import replace

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit import QreditError
from qredit.objectives import garl, paft, verifree
from tests.support.batches import likelihood_batch
from tests.support.rounding import same

log_weights = st.lists(st.floats(-2000, 0) | st.just(-torch.inf), min_size=2, max_size=8)
commitments = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)

mpmath.mp.dps = 50


def reference(log_w, q, normalize):
    """a_m and c_m of the estimator's definition, digit by digit, with the baseline at q = 1 as the limit from below."""
    w = [mpmath.exp(x) if x > -torch.inf else mpmath.mpf(0) for x in log_w]
    size, q = len(w), mpmath.mpf(q)
    mean = sum(w) / size
    if mean == 0:
        return [0.0] * size, [0.0] * size
    scale = size**-q if normalize else mpmath.mpf(1)
    a = [scale * x / mean**q for x in w]
    others = [sum(w[:m] + w[m + 1 :]) / (size - 1) for m in range(size)]
    c = [amplified - scale * (other ** (1 - q) if other else 0) for amplified, other in zip(a, others, strict=True)]
    return [float(x) for x in a], [float(x) for x in c]


@given(log_weights, commitments, st.booleans())
def test_garl_is_its_definition_at_every_likelihood(log_w, q, normalize):
    credit = garl(q, normalize=normalize).credit(likelihood_batch(log_w))
    a, c = reference(log_w, q, normalize)
    assert credit.dtype == torch.float32
    assert credit[:, 3].tolist() == pytest.approx(a, rel=1e-6, abs=1e-37)
    assert credit[:, 0].tolist() == pytest.approx(c, rel=1e-6, abs=1e-7 * max(a) + 1e-37)


def test_a_worked_group():
    """w = (0.4, 0.1, 0.1, 0): w̄ = 0.15; at q = 1/2, a = w/√0.15, baselines √(0.2/3), √(0.5/3), √(0.5/3), √0.2."""
    log_w = torch.tensor([0.4, 0.1, 0.1, 0.0], dtype=torch.float64).log()
    credit = garl(0.5, normalize=False).credit(likelihood_batch(log_w))
    a = [0.4 / 0.15**0.5, 0.1 / 0.15**0.5, 0.1 / 0.15**0.5, 0.0]
    baseline = [(0.2 / 3) ** 0.5, (0.5 / 3) ** 0.5, (0.5 / 3) ** 0.5, 0.2**0.5]
    assert credit[:, 4].tolist() == pytest.approx(a)
    assert credit[:, 0].tolist() == pytest.approx([x - b for x, b in zip(a, baseline, strict=True)])
    halved = garl(0.5).credit(likelihood_batch(log_w))
    assert halved[:, 4].tolist() == pytest.approx([x / 2 for x in a])  # M^q = 4^0.5


def test_the_baseline_of_a_dominant_row_does_not_cancel():
    """The others' mean is 1e-30 of the total: the total less the own term would be 0, or rounding noise."""
    batch = likelihood_batch([0.0, *torch.full((3,), 1e-30, dtype=torch.float64).log().tolist()])
    rationale = garl(0.95, normalize=False).credit(batch)[0, 0]
    amplified = 1 / 0.25**0.95
    assert float(rationale) == pytest.approx(amplified - 1e-30**0.05, rel=1e-6)
    assert 1e-30**0.05 > 0.03  # what the cancellation would lose


def test_the_effective_reward_is_bounded_by_one():
    for q in (0.0, 0.5, 1.0):
        lone = garl(q).credit(likelihood_batch([-1.0, *[-torch.inf] * 31]))
        assert 0 < float(lone.max()) <= 1.0


@pytest.mark.parametrize("objective", [garl(0.0), garl(0.75), garl(1.0), paft(0.0), paft(0.75), paft(1.0)], ids=str)
def test_a_group_without_any_likelihood_is_zero_and_alone_so(objective):
    alone = objective.credit(likelihood_batch([-1.0, -3.0], group=[4, 4]))
    both = objective.credit(likelihood_batch([-torch.inf, -1.0, -torch.inf, -3.0], group=[9, 4, 9, 4]))
    assert torch.equal(both[[0, 2]], torch.zeros_like(alone))
    assert same(both[[1, 3]], alone)


@pytest.mark.parametrize("objective", [garl(0.5), paft(0.5)], ids=str)
def test_rows_without_an_answer_are_left_out(objective):
    plain = likelihood_batch([-1.0, -3.0])
    third = likelihood_batch([-1.0, -3.0, -0.5])
    unanswered = replace(third, answer=third.answer & (torch.arange(3) < 2)[:, None])
    assert same(objective.credit(unanswered)[:2], objective.credit(plain))
    assert float(objective.credit(unanswered)[2].abs().max()) == 0.0


def test_nothing_lands_on_forced_tokens_or_padding():
    batch = likelihood_batch([-1.0, -3.0], rationale=2, forced=1, answer=2)
    mask = batch.mask.clone()
    mask[1, -1] = False
    ragged = replace(batch, mask=mask, answer=batch.answer & mask)
    for objective in (garl(0.75), paft(0.75)):
        credit = objective.credit(ragged)
        assert credit[:, 2].tolist() == [0.0, 0.0]
        assert credit[1, -1] == 0.0


def test_pathwise_false_takes_the_gradient_off_the_answer_only():
    batch = likelihood_batch([-1.0, -3.0])
    full, ablated = garl(0.75).credit(batch), garl(0.75, pathwise=False).credit(batch)
    assert torch.equal(torch.where(batch.answer, 0.0, full), ablated)
    assert float(full[batch.answer].min()) > 0


def test_q_zero_is_verifree_and_q_one_is_iwae():
    log_w = [-1.0, -2.0, -30.0]
    batch = likelihood_batch(log_w)
    w = torch.tensor(log_w, dtype=torch.float64).exp()
    assert garl(0.0) == verifree()
    expected = [float(w[m] - (w.sum() - w[m]) / 2) for m in range(3)]
    assert verifree().credit(batch)[:, 0].tolist() == pytest.approx(expected)
    iwae = garl(1.0, normalize=False).credit(batch)
    assert iwae[:, 0].tolist() == pytest.approx((w / w.mean() - 1).tolist())


def test_paft_draws_once_for_both_spans_and_repeats():
    batch = likelihood_batch([-1.0, -1.5, -2.0, -9.0], seed=3)
    credit = paft(0.5).credit(batch)
    assert torch.equal(credit[:, 0], credit[:, 4])
    assert torch.equal(credit, paft(0.5).credit(batch))
    draws = {tuple(paft(0.5).credit(replace(batch, seed=seed))[:, 0].tolist()) for seed in range(20)}
    assert len(draws) > 3


@given(log_weights, st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 12), st.integers(0, 99))
def test_paft_is_attenuation_times_count_that_sums_to_its_draws(log_w, q, resamples, seed):
    credit = paft(q, resamples=resamples).credit(likelihood_batch(log_w, seed=seed))[:, 0].double()
    if max(log_w) == -torch.inf:
        assert float(credit.abs().max()) == 0
        return
    size = len(log_w)
    log_mean = torch.logsumexp(torch.tensor(log_w, dtype=torch.float64), 0) - torch.tensor(float(size)).log()
    unit = float(((1 - q) * log_mean if q < 1 else torch.tensor(0.0)).exp()) * size / resamples / size**q
    if unit > 1e-30:
        counts = credit / unit
        assert torch.allclose(counts, counts.round(), atol=1e-4)
        assert float(counts.sum()) == pytest.approx(resamples, rel=1e-5)
    assert all(c == 0 for c, x in zip(credit.tolist(), log_w, strict=True) if x == -torch.inf)


def test_paft_follows_a_permutation_of_its_rows():
    log_w = torch.tensor([-1.0, -1.5, -2.0, -9.0, -0.3], dtype=torch.float64)
    order = torch.tensor([3, 1, 4, 0, 2])
    straight = paft(0.75).credit(likelihood_batch(log_w, seed=5))
    permuted = paft(0.75).credit(likelihood_batch(log_w[order], seed=5))
    assert torch.allclose(permuted, straight[order])


def test_paft_draws_of_a_group_do_not_depend_on_rest_of_batch():
    alone = paft(0.75).credit(likelihood_batch([-1.0, -2.0, -3.0], group=[7, 7, 7], seed=5))
    among = paft(0.75).credit(likelihood_batch([-4.0, -5.0, -1.0, -2.0, -3.0], group=[2, 2, 7, 7, 7], seed=5))
    assert same(among[2:], alone)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: garl(1.2), "q must be a number between 0 and 1, got 1.2"),
        (lambda: garl(float("nan")), "q must be a number between 0 and 1"),
        (lambda: paft(-0.5), "q must be a number between 0 and 1, got -0.5"),
        (lambda: paft(0.5, resamples=0), "resamples must be at least 1"),
        (
            lambda: garl(0.5).credit(replace(likelihood_batch([-1.0]), answer_logp=None)),
            "needs the batch field 'answer_logp'",
        ),
        (lambda: paft(0.5).credit(replace(likelihood_batch([-1.0]), seed=None)), "needs the batch field 'seed'"),
    ],
)
def test_what_is_refused_names_the_thing(make, words):
    with pytest.raises(QreditError, match=words):
        make()


@pytest.mark.parametrize("q", [0.0, 0.5, 0.75, 0.999, 1.0])
def test_a_baseline_keeps_the_mean_where_likelihoods_are_zero(q):
    """Two rationales with w = 1/2 and w = 0, probability 1/2 each, in groups of three, enumerated: E Σ c ∇log p / M."""
    log_w = (math.log(0.5), -math.inf)
    with_baseline = without = 0.0
    for draws in itertools.product((0, 1), repeat=3):
        batch = likelihood_batch([log_w[z] for z in draws])
        amplified = garl(q).credit(batch)[:, 4]
        centred = garl(q).credit(batch)[:, 0]
        slopes = torch.tensor([0.5 if z == 0 else -0.5 for z in draws])  # d log p / d logit
        with_baseline += float((centred * slopes).mean()) / 8
        without += float((amplified * slopes).mean()) / 8
    assert with_baseline == pytest.approx(without, abs=1e-7)
