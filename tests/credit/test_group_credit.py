"""Group credit: worked numbers, traps and degenerate groups of the methods over the rewards of a group."""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit import Objective, QreditError, on_span
from qredit.core.chain import Coefficient, per_span
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio, clipped_sequence_ratio, sequence_ratio
from qredit.credit.counts import climb, credit_pass_at, probability_all_among, shape_pass_at, weigh_right_and_wrong
from qredit.credit.filters import (
    keep_most_varied,
    keep_spread_groups,
    leave_out_equal_groups,
    leave_out_zeros,
    zero_groups,
)
from qredit.credit.goal import arcsine, log_success, pass_at, success, success_std
from qredit.credit.group import center_by_group, credit_lead, scale_by_batch_std, scale_by_group_std, whiten_over_tokens
from qredit.credit.halves import center_by_halves, cosine_restarts
from qredit.credit.likelihood import amplified_likelihood
from qredit.credit.measure import cluster_share, mean_entropy, sampled_length
from qredit.credit.reward import reward
from qredit.objectives import (
    canon,
    cispo,
    empo,
    from_surrogate,
    grpo,
    grpo_passk,
    gspo,
    maxrl,
    maxrl_truncated,
    maxrl_uncentred,
    nsr,
    pass_at_k,
    pass_at_k_shaped,
    psr,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
    w_reinforce,
)
from qredit.objectives.parsing import parse
from qredit.testing.laws.estimator import reward_slope
from tests.support.batches import likelihood_batch, reward_batch


def advantages(objective, rewards, group=None, **fields):
    """One number per rollout."""
    return objective.credit(reward_batch(rewards, group, **fields))[:, 0].tolist()


def of(objective):
    """(k, m) → the credit of a right and of a wrong rollout, as the objective gives it."""

    def advantage(k, m):
        found = advantages(objective, [1.0] * k + [0.0] * (m - k))
        return (found[0] if k else 0.0), (found[-1] if k < m else 0.0)

    return advantage


def expected_slope(advantage, p, rollouts):
    """The mean gradient of a Bernoulli policy in its logit, over every outcome of the group."""
    return reward_slope(advantage, p, rollouts) * p * (1 - p)


# --- pass@k


@pytest.mark.parametrize(("p", "target"), [(0.2, 0.2560), (0.8, 0.0640)])
def test_pass_at_k_has_the_mean_gradient_of_pass_at_k(p, target):
    assert expected_slope(of(pass_at_k(2)), p, 4) == pytest.approx(target, abs=5e-5)
    assert 2 * (1 - p) * p * (1 - p) == pytest.approx(target, abs=5e-5)


@pytest.mark.parametrize(("p", "biased", "target"), [(0.2, 0.2773, 0.2560), (0.8, 0.1493, 0.0640)])
def test_mean_of_the_others_first_terms_is_a_biased_baseline(p, biased, target):
    def first_terms(rewards):
        wrong, m = rewards.count(0), len(rewards)
        return [2 * r * math.comb(wrong, 1) / math.comb(m - 1, 1) for r in rewards]

    def less_the_others(k, m):
        terms = first_terms([1] * k + [0] * (m - k))
        centred = [term - (sum(terms) - term) / (m - 1) for term in terms]
        return centred[0], centred[-1]

    def plain(k, m):
        terms = first_terms([1] * k + [0] * (m - k))
        return terms[0], terms[-1]

    assert expected_slope(plain, p, 4) == pytest.approx(target, abs=5e-5)
    assert expected_slope(less_the_others, p, 4) == pytest.approx(biased, abs=5e-5)
    assert expected_slope(of(pass_at_k(2)), p, 4) == pytest.approx(target, abs=5e-5)


def test_baseline_of_pass_at_k_is_mean_of_group_without_rollout():
    """One right of four, k = 2: alone it has 2·C(3,1)/C(3,1) = 2; a wrong one's others have 2·(1/3)·C(2,1)/C(2,1)."""
    assert advantages(pass_at_k(2), [1.0, 0.0, 0.0, 0.0]) == pytest.approx([2.0, *[-2 / 3] * 3])
    assert advantages(pass_at_k(1), [1.0, 0.0, 0.0, 0.0]) == pytest.approx(advantages(rloo(), [1.0, 0.0, 0.0, 0.0]))


def test_pass_at_k_has_no_baseline_at_k_and_nothing_below():
    assert advantages(pass_at_k(3), [1.0, 0.0, 0.0]) == pytest.approx([3.0, 0.0, 0.0])
    assert advantages(pass_at_k(3), [1.0, 1.0, 0.0]) == [0.0] * 3
    assert advantages(pass_at_k(3), [1.0, 0.0]) == [0.0] * 2


def test_shaped_pass_at_k_on_worked_groups():
    """G = 8, k = 4."""

    def shaped(right):
        return of(pass_at_k_shaped(4))(right, 8)

    assert shaped(1) == pytest.approx((1.000, -0.143), abs=5e-4)
    assert shaped(4) == pytest.approx((0.120, -0.120), abs=5e-4)
    for right in (0, 5, 6, 7, 8):
        assert shaped(right) == (0.0, 0.0)


@pytest.mark.parametrize("right", range(9))
def test_shaped_pass_at_k_sums_to_zero_over_the_group(right):
    found = advantages(pass_at_k_shaped(3), [1.0] * right + [0.0] * (8 - right))
    assert sum(found) == pytest.approx(0.0, abs=1e-6)


def test_only_the_best_of_a_group_has_a_lead():
    # std 0.5 of (1, 0.5, 0), 0.2 of (0.1, 0.5, 0.3), the unscored rollout in none
    rewards = [1.0, 0.1, math.nan, 0.5, 0.5, 0.0, 0.3]
    found = advantages(grpo_passk(epsilon_std=0.0), rewards, [0, 1, 0, 1, 0, 0, 1])
    assert found == pytest.approx([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    assert advantages(grpo_passk(), [0.0, 1.0, 0.0, 0.0]) == pytest.approx([0.0, 2.0, 0.0, 0.0], abs=1e-5)


def test_a_shared_best_and_a_rollout_alone_have_no_lead():
    assert advantages(grpo_passk(), [1.0, 1.0, 0.0, 1.0], [0, 0, 0, 1]) == [0.0] * 4
    assert advantages(grpo_passk(), [1.0, math.nan]) == [0.0, 0.0]


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_the_lead_of_rewards_climbs_pass_at_group_size(p):
    lead = Objective(on_span("sampled", reward() | credit_lead()))
    assert expected_slope(of(lead), p, 4) == pytest.approx((1 - p) ** 3 * p * (1 - p))


def test_chances_are_ratios_of_binomials():
    for some, every, draws in itertools.product(range(6), range(6), range(5)):
        if some <= every:
            expected = math.comb(some, draws) / math.comb(every, draws) if draws <= every else 0.0
            found = probability_all_among(
                torch.tensor([some * 1.0]).double(), torch.tensor([every * 1.0]).double(), draws
            )
            assert float(found) == pytest.approx(expected, abs=1e-15)


# --- the surrogate view


def test_in_large_groups_finite_forms_climb_population_goals():
    size, right = 4000, 1000
    p = torch.tensor([right / size], dtype=torch.float64)

    @dataclass(frozen=True)
    class shaped:
        k: int

        def slope(self, p):
            passed = 1 - (1 - p) ** self.k
            return (1 - p) ** (self.k - 1) / (passed * (1 - passed)).sqrt()

    for stage, goal in ((credit_pass_at(3), pass_at(3)), (shape_pass_at(3), shaped(3))):
        counts = torch.tensor([right], dtype=torch.float64), torch.tensor([size], dtype=torch.float64)
        for found, wanted in zip(stage.advantages(*counts), climb(goal).advantages(*counts), strict=True):
            assert float(found) == pytest.approx(float(wanted), rel=0.01)
    assert float(pass_at(3).slope(p)) == pytest.approx(3 * 0.75**2)


@pytest.mark.parametrize(
    ("goal", "function"),
    [
        (success(), lambda p: p),
        (log_success(), math.log),
        (arcsine(), lambda p: 2 * math.asin(math.sqrt(p))),
        (pass_at(4), lambda p: 1 - (1 - p) ** 4),
        (success_std(), lambda p: math.sqrt(p * (1 - p))),
        (0.5 * arcsine() + success_std(), lambda p: math.asin(math.sqrt(p)) + math.sqrt(p * (1 - p))),
    ],
    ids=[*("success", "log", "arcsine", "pass@4", "std", "sum")],
)
def test_a_slope_is_the_derivative_of_its_goal(goal, function):
    for p in (0.1, 0.37, 0.8):
        numeric = (function(p + 1e-6) - function(p - 1e-6)) / 2e-6
        assert float(goal.slope(torch.tensor([p], dtype=torch.float64))) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("right", range(1, 6))
def test_regulariser_that_weighs_grpo_by_one_minus_success_rate(right):
    rewards = [1.0] * right + [0.0] * (6 - right)
    plain = advantages(from_surrogate(arcsine()), rewards)
    weighed = advantages(from_surrogate(0.5 * arcsine() + success_std()), rewards)
    assert weighed == pytest.approx([(1 - right / 6) * value for value in plain])


def doubled_slope(p):
    """F' of a user's own."""
    return 2 * torch.ones_like(p)


@dataclass(frozen=True)
class my_goal:
    """A user's own goal, without our base class."""

    def slope(self, p):
        return 2 * torch.ones_like(p)


@pytest.mark.parametrize("goal", [f"imported_slope('{__name__}.doubled_slope')", f"{__name__}.my_goal()"])
def test_a_users_goal_is_read_from_its_import_path(goal):
    objective = parse(f"from_surrogate({goal})")
    assert advantages(objective, [1.0, 0.0, 0.0, 0.0]) == pytest.approx([1.5, *[-0.5] * 3])
    assert parse(str(objective)) == objective


def test_goals_add_and_scale_and_read_back():
    goal = 0.5 * (arcsine() + 2 * success()) + pass_at(3)
    objective = from_surrogate(goal)
    assert parse(str(objective)) == objective
    p = torch.tensor([0.3], dtype=torch.float64)
    parts = (arcsine().slope(p) + 2 * success().slope(p)) / 2 + pass_at(3).slope(p)
    assert torch.equal(goal.slope(p), parts)


def test_a_goal_that_is_none_is_refused():
    for text, words in (
        ("from_surrogate(0.5)", "goal"),
        ("from_surrogate(imported_slope('math.nothing'))", "cannot import 'math.nothing'"),
        ("from_surrogate(pass_at(0))", "k must be a number between 1 and inf, got 0"),
    ):
        with pytest.raises(QreditError, match=words):
            parse(text)


# --- MaxRL


@pytest.mark.parametrize(
    ("objective", "order", "target"),
    [(maxrl(epsilon=0.0), 3, 0.3904), (maxrl_uncentred(), 4, 0.4723), (maxrl_truncated(4), 4, 0.4723)],
    ids=str,
)
def test_each_form_of_maxrl_climbs_the_order_it_says(objective, order, target):
    """p = .2, G = 4: the shipped advantage is that of order 3, since a group without a success gives nothing."""
    p = 0.2
    exact = sum((1 - p) ** (k - 1) for k in range(1, order + 1)) * p * (1 - p)
    assert expected_slope(of(objective), p, 4) == pytest.approx(exact, rel=1e-6)
    assert exact == pytest.approx(target, abs=5e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_truncated_log_is_unbiased_at_every_order(order):
    for p in (0.2, 0.7):
        exact = sum((1 - p) ** (k - 1) for k in range(1, order + 1)) * p * (1 - p)
        assert expected_slope(of(maxrl_truncated(order)), p, 4) == pytest.approx(exact, rel=1e-6)


def test_a_truncated_log_pushes_a_group_without_a_success():
    assert advantages(maxrl_truncated(3), [0.0] * 5) == [-2.0] * 5
    assert advantages(maxrl_truncated(9), [0.0] * 5) == [-4.0] * 5
    assert advantages(maxrl_truncated(1), [1.0, 0.0]) == [1.0, 0.0]


# --- right and wrong


def test_advantages_of_the_two_signs():
    rewards = [1.0, 0.0, 0.0, math.nan]
    assert advantages(psr(), rewards) == [1.0, 0.0, 0.0, 0.0]
    assert advantages(nsr(), rewards) == [0.0, -1.0, -1.0, 0.0]
    assert advantages(w_reinforce(), rewards) == pytest.approx([0.1, -1.0, -1.0, 0.0])


def test_the_class_that_is_left_out_leaves_the_token_mean_too():
    batch = reward_batch([1.0, 0.0], lengths=[1, 3])
    logp = torch.zeros(2, 3, requires_grad=True)
    assert torch.autograd.grad(psr().loss(logp, batch), logp)[0].tolist() == [[-1.0, 0.0, 0.0], [0.0] * 3]
    slope = torch.autograd.grad(nsr().loss(logp, batch), logp)[0]
    assert slope[1].tolist() == pytest.approx([1 / 3] * 3)
    slope = torch.autograd.grad(w_reinforce(0.0).loss(logp, batch), logp)[0]
    assert slope[1].tolist() == pytest.approx([1 / 4] * 3)


def test_groups_of_one_reward_still_push():
    assert advantages(nsr(), [0.0, 0.0]) == [-1.0, -1.0]
    assert advantages(psr(), [1.0, 1.0]) == [1.0, 1.0]


@pytest.mark.parametrize(("objective", "reward"), [(psr(), 0.0), (nsr(), 1.0)], ids=str)
def test_a_step_of_the_other_class_alone_has_no_loss(objective, reward):
    batch = reward_batch([reward] * 3)
    logp = torch.zeros(3, 3, requires_grad=True)
    loss = objective.loss(logp, batch)
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, logp)[0].abs().max() == 0.0


@pytest.mark.parametrize(
    "objective",
    [psr(), nsr(), w_reinforce(), pass_at_k(2), pass_at_k_shaped(2), maxrl_truncated(2), from_surrogate(success())],
    ids=str,
)
def test_rewards_other_than_0_and_1_are_refused(objective):
    with pytest.raises(QreditError, match=r"needs rewards of 0 or 1, got 0\.5; it stands right after reward"):
        advantages(objective, [1.0, 0.5, 0.0])
    advantages(objective, [1.0, math.nan, 0.0])


# --- REINFORCE++


@pytest.mark.parametrize(
    ("objective", "expected"),
    [(grpo(epsilon_std=0.0), [-1, 1]), (Objective(reward() | scale_by_group_std(0.0)), [0, 2])],
)
def test_without_epsilon_a_group_without_spread_gets_nothing(objective, expected):
    *alone_or_equal, low, high = advantages(objective, [1.0, *[0.1] * 3, 0.0, 1.0], [0, 1, 1, 1, 2, 2])
    assert alone_or_equal == [0.0] * 4
    assert [low, high] == pytest.approx([math.sqrt(0.5) * value for value in expected])


@pytest.mark.parametrize("rewards", [[1.0], [0.1] * 3])
def test_without_epsilon_a_step_without_spread_gets_nothing(rewards):
    assert advantages(Objective(reward() | scale_by_batch_std(0.0)), rewards) == [0.0] * len(rewards)


def test_without_epsilon_shaped_pass_at_k_is_zero_if_all_fail():
    assert advantages(Objective(reward() | shape_pass_at(2, epsilon=0.0)), [0.0, 0.0, 0.0]) == [0.0] * 3


def test_whitening_counts_tokens_and_not_rollouts():
    """Rewards 1 and 0 on one and three tokens: mean 1/4 and variance (n-1) 1/4 over four tokens."""
    found = advantages(reinforce_pp(epsilon=0.0), [1.0, 0.0], lengths=[1, 3])
    assert found == pytest.approx([0.75 / 0.5, -0.25 / 0.5])
    even = advantages(reinforce_pp(epsilon=0.0), [1.0, 0.0], lengths=[2, 2])
    assert even[0] == pytest.approx(-even[1])
    assert abs(found[0]) != pytest.approx(abs(found[1]))


def test_whitened_coefficient_per_token_has_its_own_statistics():
    batch = reward_batch([0.0, 0.0], lengths=[1, 3])
    value = torch.tensor([[1.0, 9.0, 9.0], [3.0, 5.0, 7.0]], dtype=torch.float64)
    white = whiten_over_tokens(epsilon=0.0)(Coefficient(value), batch).spread(batch)
    tokens = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64)
    assert torch.allclose(white[batch.mask], (tokens - tokens.mean()) / tokens.std())


def test_baseline_variant_subtracts_the_group_before_the_step():
    rewards, group = [1.0, 0.0, 1.0, 1.0], [0, 0, 1, 1]
    found = advantages(reinforce_pp_baseline(epsilon=0.0), rewards, group)
    std = float(torch.tensor([0.5, -0.5, 0.0, 0.0]).repeat_interleave(3).std())
    assert found == pytest.approx([0.5 / std, -0.5 / std, 0.0, 0.0])
    plain = advantages(reinforce_pp(epsilon=0.0), rewards, group)
    assert plain[2] > 0.1


@pytest.mark.parametrize("objective", [reinforce_pp(), reinforce_pp_baseline()], ids=str)
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_step_of_equal_rewards_is_exactly_zero(objective, value):
    assert advantages(objective, [value] * 3, lengths=[1, 3, 2]) == [0.0] * 3


# --- GSPO and CISPO


def off_policy(rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch = reward_batch([1.0, 0.0, 0.5][:rows], lengths=[4, 2, 3][:rows])
    logp = -torch.rand(batch.mask.shape, dtype=torch.float64, generator=generator)
    noise = 0.3 * torch.randn(batch.mask.shape, dtype=torch.float64, generator=generator)
    return replace(batch, sampler_logp=logp + noise), logp


def slope(objective, batch, logp):
    leaf = logp.clone().requires_grad_()
    return torch.autograd.grad(objective.loss(leaf, batch), leaf)[0]


def test_sequence_ratio_has_the_gradient_of_the_ratio_itself():
    batch, logp = off_policy()
    advantage = grpo().credit(batch)[:, 0].double()

    def direct(leaf):
        change = torch.where(batch.sampled, leaf - batch.sampler_logp, 0.0).sum(1) / batch.sampled.sum(1)
        return -(change.exp() * advantage).mean()

    leaf = logp.clone().requires_grad_()
    expected = torch.autograd.grad(direct(leaf), leaf)[0]
    assert torch.allclose(slope(gspo(1.0, 100.0), batch, logp), expected, rtol=1e-6)


def test_a_rollout_is_clipped_as_a_whole_by_its_ratio():
    batch = replace(reward_batch([1.0, 0.0], lengths=[2, 2]), sampler_logp=torch.zeros(2, 2))
    logp = torch.tensor([[0.6, -0.5], [0.6, -0.5]])  # mean change 0.05: s = 1.051
    sequence = slope(gspo(0.2, 0.2), batch, logp)
    token = slope(replace(gspo(), surrogate=clipped_ratio(0.2, 0.2)), batch, logp)
    assert bool((sequence != 0).all())
    assert token[0, 0] == 0.0
    assert bool((slope(gspo(0.2, 0.04), batch, logp)[0] == 0).all())
    assert bool((slope(gspo(0.2, 0.04), batch, logp)[1] != 0).all())


def test_tokens_without_a_coefficient_stay_in_sequence_ratio():
    batch, logp = off_policy()
    coefficient = batch.mask.double()
    coefficient[:, 0] = 0.0
    loss = clipped_sequence_ratio(1.0, 100.0)(coefficient, logp, batch)
    assert torch.allclose(loss[:, 1], -sequence_ratio(logp, batch)[:, 0])
    assert bool((loss[:, 0] == 0).all())


def test_an_impossible_token_gives_the_sequence_ratio_no_nan():
    batch, logp = off_policy()
    logp = logp.clone()
    logp[0, 1] = -torch.inf
    batch = replace(
        batch,
        sampler_logp=batch.sampler_logp.clone().index_put_(
            (torch.tensor(0), torch.tensor(1)), torch.tensor(-torch.inf).double()
        ),
    )
    assert bool(sequence_ratio(logp, batch).isfinite().all())
    credit = torch.zeros_like(logp)
    credit[1] = 1.0
    leaf = logp.requires_grad_()
    gradient = torch.autograd.grad(clipped_sequence_ratio(0.2, 0.2)(credit, leaf, batch).sum(), leaf)[0]
    assert bool(gradient.isfinite().all())


def test_on_policy_gspo_is_grpo():
    batch = replace(off_policy()[0], sampler_logp=None)
    logp = off_policy()[1]
    assert torch.allclose(slope(gspo(), batch, logp), slope(grpo(), batch, logp))


def test_cispo_drops_no_token_where_the_clipped_ratio_does():
    batch = replace(reward_batch([1.0, 0.0], lengths=[2, 2]), sampler_logp=torch.zeros(2, 2))
    logp = torch.tensor([[2.0, -2.0], [2.0, -2.0]])
    found = slope(cispo(ratio_max=5.0), batch, logp)
    advantage = float(cispo().credit(batch)[0, 0])
    capped = [min(math.exp(2.0), 5.0), math.exp(-2.0)]
    assert found[0].tolist() == pytest.approx([-advantage * ratio / 4 for ratio in capped])
    assert found[1].tolist() == pytest.approx([advantage * ratio / 4 for ratio in capped])
    clipped = slope(replace(cispo(), surrogate=clipped_ratio(0.2, 4.0)), batch, logp)
    assert clipped[0, 0] == 0.0
    assert clipped[1, 1] == 0.0


# --- CANON


def entropies(values, rewards):
    """Rows of one token with these entropies."""
    entropy = torch.tensor(values, dtype=torch.float64)[:, None]
    return reward_batch(rewards, lengths=[1] * len(rewards), extra={"sampler_entropy": entropy})


WORKED = ([0.2, 0.5, 0.3, 0.9, 0.8, 0.7], [1.0, 1.0, 0.0, 0.0, 1.0, 0.0])


def halves(batch, *arguments, **named):
    return canon(8, mean_entropy(), *arguments, **named).credit(batch)[:, 0].tolist()


def test_halves_on_the_worked_group():
    batch = entropies(*WORKED)
    assert halves(batch) == pytest.approx([0.667, 0.667, -0.333, -0.667, 0.333, -0.667], abs=5e-4)
    assert halves(batch, 0.0) == pytest.approx([0.333, 0.333, -0.667, -0.333, 0.667, -0.333], abs=5e-4)
    assert halves(batch, 0.5) == pytest.approx([r - 0.5 for r in WORKED[1]], abs=1e-7)


def test_a_factor_on_a_half_stands_on_both_sides_of_comparison():
    """α = ½ on the low-entropy half: high R - ½·mean low, low ½·R - mean high."""
    found = halves(entropies(*WORKED), low=0.5)
    low, high = 2 / 3, 1 / 3
    assert found == pytest.approx([0.5 - high, 0.5 - high, -high, -0.5 * low, 1 - 0.5 * low, -0.5 * low])
    inside = halves(entropies(*WORKED), 0.0, low=0.5)
    assert inside == halves(entropies(*WORKED), 0.0)


def test_equal_metrics_keep_order_and_odd_groups_a_high_half():
    batch = reward_batch([1.0, 0.0, 0.0], lengths=[2, 2, 2])
    found = canon(8, sampled_length()).credit(batch)[:, 0].tolist()
    assert found == [1.0, -1.0, -1.0]  # low = {0}, high = {1, 2}
    halved = canon(8, sampled_length(), between=0.5).credit(batch)[:, 0].tolist()
    assert halved != pytest.approx([2 / 3, -1 / 3, -1 / 3])


def test_a_rollout_alone_keeps_its_reward_and_equal_ones_none():
    assert halves(entropies([0.4], [1.0])) == [1.0]
    assert halves(entropies([0.4], [1.0]), 0.0) == [1.0]
    assert halves(entropies([0.3, 0.1, 0.2], [0.1] * 3), 0.3) == [0.0] * 3


def test_an_unscored_rollout_stands_in_neither_half():
    with_it = halves(entropies([0.25, *WORKED[0]], [math.nan, *WORKED[1]]))
    assert with_it == [0.0, *halves(entropies(*WORKED))]


def test_mean_reward_of_step_moves_weight_between_the_halves():
    batch = entropies(*WORKED)
    dynamic = canon(8, mean_entropy(), between=parse_source("batch_mean_reward()"))
    assert dynamic.credit(batch)[:, 0].tolist() == pytest.approx(halves(batch, 0.5))
    other = replace(batch, reward=torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0]))
    assert dynamic.credit(other)[:, 0].tolist() == pytest.approx(halves(other, 4 / 6))


def parse_source(text):
    return parse(text).source


def test_the_two_cosine_schedules_of_the_source():
    """Its weight of the own half, 1 - μ: up to .6 in 30 steps and back to 0 every 40; or from 1 to 0, then up to .6."""
    first, second = cosine_restarts(400, 0.4, 1.0, 1.0), cosine_restarts(400, 1.0, 0.4, 0.0)

    def own(schedule, step):
        return 1 - schedule.at(step / 400)

    for step in (0, 7, 29):
        assert own(first, step) == pytest.approx(0.6 * (step + 1) / 30)
        assert own(second, step) == pytest.approx(1 - (step + 1) / 30)
    for step in (30, 41, 50, 69, 70, 199):
        turn = math.cos(math.pi * ((step - 30) % 40) / 40)
        assert own(first, step) == pytest.approx(0.3 * (1 + turn))
        assert own(second, step) == pytest.approx(0.3 * (1 - turn), abs=1e-12)
    assert first.extremes == (0.4, 1.0)


def test_a_scheduled_weight_must_be_resolved():
    objective = canon(8, mean_entropy(), between=cosine_restarts(400, 0.4, 1.0, 1.0))
    batch = entropies(*WORKED)
    with pytest.raises(QreditError, match="between of .* is a schedule"):
        objective.credit(batch)
    assert objective.at(50 / 400).credit(batch)[:, 0].tolist() == pytest.approx(halves(batch, 0.7))
    assert parse(str(objective)) == objective


# --- EMPO


def shares(cluster):
    batch = replace(reward_batch([0.0] * len(cluster)), extra={"cluster": torch.tensor(cluster)})
    return cluster_share()(batch).value[:, 0].tolist()


def test_the_share_of_agreeing_answers_on_the_worked_group():
    """Counts 4, 2, 1 of 7: semantic entropy .956, below ln 7 = 1.946."""
    assert shares([0, 0, 0, 0, 1, 1, 2]) == pytest.approx([*[0.571] * 4, *[0.286] * 2, 0.143], abs=5e-4)
    probabilities = [4 / 7, 2 / 7, 1 / 7]
    entropy = -sum(p * math.log(p) for p in probabilities)
    assert entropy == pytest.approx(0.956, abs=5e-4)
    assert math.log(7) == pytest.approx(1.946, abs=5e-4)


def test_answers_that_all_differ_and_empty_ones_have_no_share():
    assert shares([0, 1, 2]) == [0.0] * 3
    assert shares([-1, -1, 3, 3]) == [0.0, 0.0, 0.5, 0.5]
    assert shares([-1, -1, 3]) == [0.0] * 3  # empty answers do not agree with each other
    assert shares([5]) == [0.0]
    assert shares([-1]) == [0.0]


def test_a_unanimous_group_teaches_nothing():
    batch = replace(reward_batch([0.0] * 5, group=[0, 0, 0, 1, 1]), extra={"cluster": torch.tensor([2, 2, 2, 0, -1])})
    assert empo().credit(batch).abs().max() == 0.0
    mixed = replace(batch, extra={"cluster": torch.tensor([2, 2, 0, 1, 1])})
    assert empo().credit(mixed)[:, 0].tolist() == pytest.approx([0.5774, 0.5774, -1.1547, 0.0, 0.0], abs=1e-3)


# --- filters


def left(stage, rewards, group=None, **fields):
    """Which rows a filter keeps after reward()."""
    batch = reward_batch(rewards, group, **fields)
    coefficient = (reward() | stage)(batch)
    assert torch.equal(coefficient.weight[:, 0] > 0, coefficient.keep[:, 0] | batch.reward.isnan())
    return [row for row, kept in enumerate(coefficient.keep[:, 0].tolist()) if kept]


def test_equal_groups_leave_the_update_and_its_denominator():
    rewards, group = [1.0, 0.0, 1.0, 1.0, 1.0], [0, 0, 1, 1, 2]
    assert left(leave_out_equal_groups(), rewards, group) == [0, 1]
    plain = reward() | center_by_group() | scale_by_group_std()
    filtered = Objective(on_span("sampled", plain | leave_out_equal_groups()), reduction=mean_per_token())
    batch = reward_batch(rewards, group)
    whole = Objective(on_span("sampled", plain), reduction=mean_per_token())
    logp = torch.zeros(5, 3, dtype=torch.float64)
    assert torch.allclose(slope(filtered, batch, logp), slope(whole, batch, logp) * 15 / 6)
    nothing = reward_batch([1.0] * 4)
    assert slope(filtered, nothing, logp[:4]).abs().max() == 0.0


def test_an_equal_group_is_told_before_and_after_centring():
    rewards, group = [0.1, 0.1, 0.1, 1.0, 0.0], [0, 0, 0, 1, 1]
    assert left(leave_out_equal_groups(), rewards, group) == [3, 4]
    batch = reward_batch(rewards, group)
    later = (reward() | center_by_group() | scale_by_group_std() | leave_out_equal_groups())(batch)
    assert later.keep[:, 0].tolist() == [False] * 3 + [True] * 2


def test_rows_whose_likelihood_is_learnt_are_never_left_out():
    batch = likelihood_batch([-1.0, -1.0, -1.0])
    for stage in (leave_out_equal_groups(), leave_out_zeros(), keep_spread_groups(0.0), keep_most_varied(1)):
        kept = (amplified_likelihood(0.5) | stage)(batch)
        assert bool(kept.keep.all())
        assert bool((kept.weight == 1).all())
        assert torch.equal(kept.value, amplified_likelihood(0.5)(batch).value)
    learnt = per_span(rationale=amplified_likelihood(0.5), answer=amplified_likelihood(0.5)) | zero_groups(equal=True)
    scored = replace(batch, reward=torch.ones(3))
    assert torch.equal(Objective(learnt).credit(scored), Objective(learnt.source).credit(scored))


def test_an_unscored_row_neither_counts_nor_is_weighed():
    batch = reward_batch([1.0, math.nan, 1.0], group=[0, 0, 1])
    found = (reward() | leave_out_equal_groups())(batch)
    assert found.weight[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert found.keep[:, 0].tolist() == [False, False, False]


@pytest.mark.parametrize(
    ("share", "kept"), [(1.0, [0, 1, 2, 3]), (0.75, [0, 1, 3]), (0.5, [1, 3]), (0.26, [1, 3]), (0.25, [1]), (0.0, [])]
)
def test_the_groups_of_largest_spread_are_kept(share, kept):
    """Standard deviations, up to a factor: .5, 1, 0, 1; the group with the smaller number first among equals."""
    rewards = [0.0, 0.5, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    group = [0, 0, 1, 1, 2, 2, 3, 3]
    assert left(keep_spread_groups(share), rewards, group) == [2 * g + side for g in kept for side in (0, 1)]


def test_a_group_without_a_scored_row_takes_no_place():
    rewards = [math.nan, math.nan, 0.0, 1.0, 0.0, 0.5]
    assert left(keep_spread_groups(0.5), rewards, [0, 0, 1, 1, 2, 2]) == [2, 3]


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=7), st.integers(1, 7))
def test_most_varied_rollouts_are_those_of_search_over_all_sets(rewards, wanted):
    kept = left(keep_most_varied(wanted), [float(r) for r in rewards])
    assert len(kept) == min(wanted, len(rewards))

    def variance(rows):
        mean = sum(rewards[i] for i in rows) / len(rows)
        return sum((rewards[i] - mean) ** 2 for i in rows)

    best = max(variance(rows) for rows in itertools.combinations(range(len(rewards)), len(kept)))
    assert variance(kept) == pytest.approx(best)


def test_the_most_varied_rollouts_are_found_per_group():
    rewards = [0.0, 0.4, 1.0, 0.5, 0.0, 1.0]
    assert left(keep_most_varied(2), rewards, [0, 0, 0, 0, 1, 1]) == [0, 2, 4, 5]


def test_statistics_after_a_filter_are_those_of_what_is_kept():
    rewards = [0.0, 0.4, 1.0, 0.5]
    batch = reward_batch(rewards)
    before = Objective(reward() | keep_most_varied(2) | center_by_group()).credit(batch)[:, 0].tolist()
    after = Objective(reward() | center_by_group() | keep_most_varied(2)).credit(batch)[:, 0].tolist()
    assert before == pytest.approx([-0.5, 0.0, 0.5, 0.0])
    assert after == pytest.approx([-0.475, 0.0, 0.525, 0.0])


def test_a_filter_works_on_rollouts_and_says_so():
    with pytest.raises(QreditError, match="works on one number per rollout"):
        (rloo() | leave_out_equal_groups()).credit(reward_batch([1.0, 0.0]))


KINDS = ("alone", "equal", "all_right", "all_wrong")
DEGENERATE = {
    "one right": ([1.0], {"alone", "all_right"}),
    "one wrong": ([0.0], {"alone", "all_wrong"}),
    "one graded": ([0.5], {"alone"}),
    "two right": ([1.0, 1.0], {"equal", "all_right"}),
    "two wrong": ([0.0, 0.0], {"equal", "all_wrong"}),
    "two graded": ([0.5, 0.5], {"equal"}),
    "one of two scored": ([1.0, math.nan], {"alone", "all_right"}),
    "mixed": ([1.0, 0.0], set()),
    "none scored": ([math.nan, math.nan], set()),
}


@pytest.mark.parametrize("chosen", [c for n in range(1, 5) for c in itertools.combinations(KINDS, n)], ids="+".join)
def test_the_named_degenerate_groups_are_zeroed_and_no_others(chosen):
    rewards = [r for told, _ in DEGENERATE.values() for r in told]
    group = [number for number, (told, _) in enumerate(DEGENERATE.values()) for _ in told]
    batch = reward_batch(rewards, group)
    stage = zero_groups(**dict.fromkeys(chosen, True))
    value = torch.full((len(rewards), 3), 2.0, dtype=torch.float64)
    found = stage(Coefficient(value), batch)
    assert found.weight is None
    for number, (told, kinds) in enumerate(DEGENERATE.values()):
        rows = [i for i in range(len(rewards)) if group[i] == number]
        for row, r in zip(rows, told, strict=True):
            zeroed = bool(kinds & set(chosen)) and not math.isnan(r)
            assert found.value[row].tolist() == [0.0 if zeroed else 2.0] * 3


def test_a_policy_for_degenerate_groups_must_say_something():
    with pytest.raises(QreditError, match="say which groups"):
        zero_groups()
    assert advantages(rloo() | zero_groups(alone=True), [1.0, 1.0, 0.0], [0, 1, 1]) == [0.0, 1.0, -1.0]


def test_signed_weights_stand_on_scored_rollouts_only():
    batch = reward_batch([1.0, math.nan, 0.0])
    found = (reward() | weigh_right_and_wrong(0.5, -2.0))(batch)
    assert found.value[:, 0].tolist() == [0.5, 0.0, -2.0]


def test_a_metric_of_halves_that_needs_a_forward_pass_says_so():
    from qredit.core.chain import Scope, When

    by_entropy, by_length = center_by_halves(mean_entropy()), center_by_halves(sampled_length())
    assert (by_entropy.when, by_length.when) == (When.UPDATE, When.ROLLOUT)
    assert (by_entropy.needs, by_length.needs) == ({"sampler_entropy"}, set())
    mixed = center_by_halves(sampled_length(), between=parse_source("batch_mean_reward()"))
    assert (by_length.scope, mixed.scope, mixed.needs) == (Scope.GROUP, Scope.BATCH, {"reward"})
