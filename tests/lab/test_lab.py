"""The lab's own arithmetic: policies, pools, exact and sampled moments."""

import collections
from dataclasses import replace

import pytest
import torch

from qredit import QreditError
from qredit.core.chain import Coefficient
from qredit.credit.likelihood import resample_by_likelihood
from qredit.objectives import garl, grpo, paft, rloo
from qredit.objectives.parsing import parse
from qredit.testing.laws.estimator import reward_slope
from qredit.testing.moments import (
    compositions,
    enumerate_groups,
    exact_moments,
    group_gradients,
    make_group_batch,
    sampled_moments,
)
from qredit.testing.policy import TabularPolicy
from qredit.testing.transformer import TransformerPolicy

POLICIES = (TabularPolicy.random(seed=1), TransformerPolicy.random(seed=3))
SMALL = TabularPolicy.random(seed=2, length=1)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_probabilities_sum_to_one_and_scores_to_nothing(policy):
    tokens, answers = policy.scores
    assert float(policy.prior.sum()) == pytest.approx(1)
    assert policy.answer_logp.exp().sum(1).tolist() == pytest.approx([1.0] * policy.rationales)
    prior_score = policy.prior @ tokens[:, : policy.length].sum(1)
    answer_score = torch.einsum("zy,zyd->zd", policy.answer_logp.exp(), answers)
    assert float(prior_score.abs().max()) < 1e-12
    assert float(answer_score.abs().max()) < 1e-12


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_the_gradient_of_success_is_that_of_finite_differences(policy):
    direction = torch.randn(len(policy.theta), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ahead, behind = (replace(policy, theta=policy.theta + sign * 1e-5 * direction).success for sign in (1, -1))
    assert (ahead - behind) / 2e-5 == pytest.approx(float(policy.success_gradient @ direction), rel=1e-6)


def test_a_transformer_shares_parameters_and_a_table_does_not():
    shared, apart = (policy.scores[0] for policy in POLICIES[::-1])
    assert bool((shared[0, 2] * shared[8, 2]).any())  # the closing symbol after two rationales
    assert not bool((apart[0, 2] * apart[8, 2]).any())


def test_the_same_seed_makes_the_same_transformer():
    assert torch.equal(TransformerPolicy.random(seed=3).theta, POLICIES[1].theta)
    assert not torch.equal(TransformerPolicy.random(seed=4).theta, POLICIES[1].theta)


@pytest.mark.parametrize(("rollouts", "with_response", "count"), [(2, False, 6), (3, False, 10), (2, True, 45)])
def test_pools_are_all_multisets_with_their_probability(rollouts, with_response, count):
    every = enumerate_groups(SMALL, rollouts, with_response)
    assert len(every.members) == count
    assert float(every.probability.sum()) == pytest.approx(1)


def test_too_many_multisets_are_refused_with_their_number():
    with pytest.raises(QreditError, match=r"32 rollouts of 9 trajectories are 76904685 multisets"):
        enumerate_groups(POLICIES[0], 32, with_response=False)


def test_two_tails_are_refused():
    with pytest.raises(QreditError, match="needs both a reward and a likelihood"):
        exact_moments(parse("amplified_likelihood(q=0.5) + reward()"), SMALL, 2)


@pytest.mark.parametrize("objective", [garl(0.75), paft(0.75), paft(0.5, resamples=2), rloo(), grpo()], ids=str)
def test_sampled_moments_lie_about_the_exact_ones(objective):
    exact = exact_moments(objective, SMALL, 3)
    found = sampled_moments(objective, SMALL, 3, groups=2000, seed=0)
    spread = found.mean_error > 1e-12
    assert float(((found.mean - exact.mean)[spread] / found.mean_error[spread]).abs().max()) < 4
    assert abs(found.variance - exact.variance) < 4 * found.variance_error
    again = [sampled_moments(objective, SMALL, 3, groups=20, seed=0).mean for _ in range(2)]
    assert torch.equal(*again)


def test_moments_of_many_rollouts_approach_the_true_gradient():
    """GARL is consistent: at M = 64 its mean is within its bias, about 1/64, of ∇ℓ_q."""
    target = SMALL.loss_gradient(0.75)
    found = sampled_moments(garl(0.75, normalize=False), SMALL, 64, groups=2000, seed=0)
    assert float((found.mean - target).norm() / target.norm()) < 0.03


def test_a_pool_gradient_is_the_sum_over_its_rows_by_hand():
    """Two rationales: -(1/2) Σ_m [c_m ∇log p(z_m) + a_m ∇log p(y*|z_m)]."""
    members = torch.tensor([[0, 3]])  # rationales 0 and 1
    tokens, answers = SMALL.scores
    w = SMALL.answer_logp[:2, 0].exp()
    centred = w - w.flip(0)
    by_hand = -(centred[:, None] * tokens[:2, 0] + w[:, None] * answers[:2, 0]).mean(0)
    assert torch.allclose(group_gradients(garl(0.0), SMALL, members)[0], by_hand, rtol=1e-6)


def test_the_slope_of_a_reward_is_one_and_centred_below():
    assert reward_slope(lambda k, m: (1.0, 0.0), 0.3, 4) == pytest.approx(1)
    assert reward_slope(lambda k, m: (1 - k / m, -k / m), 0.3, 4) == pytest.approx(3 / 4)


def test_compositions_are_all_ways_to_share_out_the_draws():
    assert list(compositions(2, 2)) == [(0, 2), (1, 1), (2, 0)]
    assert len(list(compositions(3, 3))) == 10


def test_the_stage_draws_as_the_integration_assumes():
    """The frequency of each count vector over seeds and groups, against the multinomial (χ², 9 degrees of freedom)."""
    groups, seeds = 300, 10
    batch = make_group_batch(SMALL, torch.tensor([[0, 3, 6]]).expand(groups, -1), False)
    weights = SMALL.answer_logp[:, 0].softmax(0)
    ones = Coefficient(torch.ones(3 * groups, 1, dtype=torch.float64))
    seen: collections.Counter[tuple[int, ...]] = collections.Counter()
    for seed in range(seeds):
        factor = resample_by_likelihood()(ones, replace(batch, seed=seed))
        seen.update(tuple(counts) for counts in factor.value[:, 0].round().int().view(groups, 3).tolist())
    trials = groups * seeds
    statistic = 0.0
    for counts in compositions(3, 3):
        n = torch.tensor(counts, dtype=torch.float64)
        ways = 6 / float(torch.lgamma(n + 1).sum().exp())
        expected = trials * ways * float((weights**n).prod())
        statistic += (seen[counts] - expected) ** 2 / expected
    assert statistic < 27.9  # χ²(9), 99.9 %
