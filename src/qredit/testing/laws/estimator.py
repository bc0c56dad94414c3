"""Laws of the estimator: its exact mean and second moment on policies whose every trajectory is listed."""

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core import tsallis
from qredit.core.objective import Objective
from qredit.testing.batches import make_batch_for
from qredit.testing.laws.assertions import assert_close, assert_each_close
from qredit.testing.laws.subject import Advantage, Subject
from qredit.testing.moments import (
    compute_moments,
    enumerate_groups,
    exact_moments,
    group_gradients,
    integrate_over_draws,
)
from qredit.testing.policy import EnumerablePolicy, TabularPolicy, TurnPolicy
from qredit.testing.transformer import TransformerPolicy

TABLE = TabularPolicy.random(seed=2, length=1)
TWO_SYMBOLS = TabularPolicy.random(seed=1, symbols=2, length=2, answers=2)
TRANSFORMER = TransformerPolicy.random(seed=3, length=1)
WITH_ALIAS = dataclasses.replace(TabularPolicy.random(seed=4, symbols=2, length=1), right=2)
TURNS = TurnPolicy.random(seed=5, symbols=2, length=3, answers=2)
"""Two turns, and a stochastic environment between them."""
POLICIES: tuple[EnumerablePolicy, ...] = (TABLE, TWO_SYMBOLS, TRANSFORMER, WITH_ALIAS, TURNS)


def perturb_policy(policy: EnumerablePolicy) -> EnumerablePolicy:
    """The policy some updates ago: near enough for no ratio to reach a truncation, far enough for ratios to matter."""
    generator = torch.Generator().manual_seed(7)
    step = torch.randn(len(policy.theta), dtype=torch.float64, generator=generator)
    return dataclasses.replace(policy, theta=policy.theta + 0.3 * step)


def reward_slope(advantage: Advantage, p: float, rollouts: int) -> float:
    """dF/dp of what a group objective with 0/1 rewards climbs on average, from its advantages alone.

        Σ_k Binomial(k; M, p) · (1/M) [ k·A_right(k)/p - (M-k)·A_wrong(k)/(1-p) ]

    because the mean score of a right rollout is ∇p/p and that of a wrong one -∇p/(1-p).

    Args:
        advantage: (right rollouts, M) → advantage of a right one and of a wrong one.
        p: success probability.
        rollouts: M, the size of a group.
    """
    total = 0.0
    for k in range(rollouts + 1):
        right, wrong = advantage(k, rollouts)
        chance = math.comb(rollouts, k) * p**k * (1 - p) ** (rollouts - k)
        total += chance * (k * right / p - (rollouts - k) * wrong / (1 - p)) / rollouts
    return total


def climbs_its_slope(subject: Subject) -> None:
    """The exact mean of the gradient is the slope that the method's advantages imply, times ∇P."""
    assert subject.advantage is not None
    for policy in POLICIES:
        for rollouts in (2, 3):
            slope = reward_slope(subject.advantage, policy.success, rollouts)
            slope *= subject.loss_scale(len(policy.drawn) + 1)  # the forced closing symbol is no token that learns
            mean = exact_moments(subject.objective, policy, rollouts).mean
            assert_close(mean, slope * policy.loss_gradient(0.0), 1e-5, "the mean gradient and its target")


def is_the_gradient_of_its_target(subject: Subject) -> None:
    """The exact mean of the gradient is the target's, at every group size."""
    assert subject.target is not None
    for policy in POLICIES:
        for rollouts in (2, 3):
            mean = exact_moments(subject.objective, policy, rollouts).mean
            assert_close(mean, subject.target(policy, rollouts), what="the mean gradient and its target")


def is_the_gradient_of_its_target_off_policy(subject: Subject) -> None:
    """The mean over rollouts of an older policy is the gradient of this one's target, at every group size."""
    assert subject.target is not None
    for policy in POLICIES:
        for rollouts in (2, 3):
            mean = exact_moments(subject.objective, policy, rollouts, perturb_policy(policy)).mean
            assert_close(mean, subject.target(policy, rollouts), 1e-5, "the mean gradient off policy and its target")


def tends_to_its_limit_off_policy(subject: Subject) -> None:
    """For M → ∞ the mean over rollouts of an older policy is the limit (extrapolated from three sizes)."""
    assert subject.limit is not None
    limit = _limit_off_policy(subject.objective)
    assert_close(limit, subject.limit(TABLE), 2e-3, "the limit off policy and the one claimed")


def unbiased_at_q_zero(subject: Subject) -> None:
    """At q = 0 the mean is ∇ℓ_0, at every group size."""
    for policy in POLICIES:
        for rollouts in (2, 3):
            mean = exact_moments(subject.objective, policy, rollouts).mean
            assert_close(mean, policy.loss_gradient(0.0), what="the mean gradient and ∇ℓ_0")


def leading_bias(subject: Subject) -> None:
    """M·(E[ĝ] - ∇ℓ_q), extrapolated in M to infinity, is the coefficient of the formula (`tsallis.estimator_bias`)."""
    assert subject.commitment is not None
    for policy in (TABLE, TRANSFORMER):
        formula = tsallis.estimator_bias(policy.prior, policy.log_w.exp(), policy.joint_score, subject.commitment)
        assert_close(bias_coefficient(subject.objective, policy, subject.commitment), formula, 0.02, "bias and formula")


def bias_coefficient(
    objective: Objective, policy: EnumerablePolicy, q: float, sizes: tuple[int, int, int] = (8, 16, 32)
) -> Float[Tensor, " D"]:
    """lim M·(E[ĝ] - ∇ℓ_q) for M → ∞: Richardson extrapolation from three exact group sizes, each twice the last.

    Args:
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        policy: whose every trajectory can be listed.
        q: commitment, 0 … 1.
        sizes: three group sizes.
    """
    target = policy.loss_gradient(q)
    first, second, third = (m * (exact_moments(objective, policy, m).mean - target) for m in sizes)
    return (first - 6 * second + 8 * third) / 3


def baseline_changes_no_mean(subject: Subject) -> None:
    """With and without the baseline the mean is the same, at every group size."""
    assert subject.plain is not None
    for policy in POLICIES:
        for rollouts in (2, 3):
            with_it = exact_moments(subject.objective, policy, rollouts).mean
            assert_close(with_it, exact_moments(subject.plain, policy, rollouts).mean, what="the means")


def baseline_lowers_variance(subject: Subject) -> None:
    """At q = 0 the baseline lowers the total variance on these policies: a wrong sign shows in no mean."""
    assert subject.plain is not None
    for policy in POLICIES:
        with_it = exact_moments(subject.objective, policy, 4).variance
        without = exact_moments(subject.plain, policy, 4).variance
        if not with_it < without:
            raise AssertionError(f"variance {with_it:.4g} with the baseline, {without:.4g} without")


def unbiased_at_q_zero_off_policy(subject: Subject) -> None:
    """At q = 0 the mean over rollouts of an older policy is ∇ℓ_0 of this one, at every group size."""
    for policy in POLICIES:
        for rollouts in (2, 3):
            mean = exact_moments(subject.objective, policy, rollouts, perturb_policy(policy)).mean
            assert_close(mean, policy.loss_gradient(0.0), 1e-5, "the mean gradient off policy and ∇ℓ_0")


def consistent_off_policy(subject: Subject) -> None:
    """For M → ∞ the mean over rollouts of an older policy is ∇ℓ_q of this one (extrapolated from three sizes)."""
    assert subject.commitment is not None
    limit = _limit_off_policy(subject.objective)
    assert_close(limit, TABLE.loss_gradient(subject.commitment), 2e-3, "the limit off policy and ∇ℓ_q")


def _limit_off_policy(objective: Objective) -> Float[Tensor, " D"]:
    """lim E[ĝ] for M → ∞ over rollouts of an older policy: Richardson extrapolation from three exact group sizes."""
    first, second, third = (exact_moments(objective, TABLE, size, perturb_policy(TABLE)).mean for size in (8, 16, 32))
    return (first - 6 * second + 8 * third) / 3


def baseline_changes_no_mean_off_policy(subject: Subject) -> None:
    """With and without the baseline the mean over rollouts of an older policy is the same."""
    assert subject.plain is not None
    for policy in POLICIES:
        with_it = exact_moments(subject.objective, policy, 3, perturb_policy(policy)).mean
        assert_close(
            with_it, exact_moments(subject.plain, policy, 3, perturb_policy(policy)).mean, 1e-5, what="the means"
        )


def mean_over_draws_is_the_plug_in_off_policy(subject: Subject) -> None:
    """On every pool of an older policy's rollouts the mean over the objective's draws is the plug-in's gradient."""
    assert subject.plug_in is not None
    for policy in (TABLE, TRANSFORMER, TURNS):
        sampler = perturb_policy(policy)
        every = enumerate_groups(sampler, 3, with_response=False)
        expected = group_gradients(subject.plug_in, policy, every.members, sampler=sampler)
        mean, _ = integrate_over_draws(subject.objective, policy, every.members, sampler)
        assert_close(mean, expected, 1e-5, what="the mean over the draws and the plug-in off policy")


def mean_over_draws_is_the_plug_in(subject: Subject) -> None:
    """On every pool the mean over the objective's own draws is the plug-in's gradient, and its variance no smaller."""
    assert subject.plug_in is not None
    for policy in (TABLE, TRANSFORMER, TURNS):
        for rollouts in (2, 3):
            every = enumerate_groups(policy, rollouts, with_response=False)
            expected = group_gradients(subject.plug_in, policy, every.members)
            mean, square = integrate_over_draws(subject.objective, policy, every.members)
            assert_close(mean, expected, what="the mean over the draws and the plug-in")
            variance = float(every.probability @ square - (every.probability @ mean).square().sum())
            if not variance >= compute_moments(expected, every.probability).variance * (1 - 1e-6):
                raise AssertionError("drawing lowered the variance, which no resampling can")


def equals_what_it_is_said_to_equal(subject: Subject) -> None:
    """The coefficient is the stated multiple of another objective's, on random batches."""
    for other, factor in subject.equals:
        for seed in range(3):
            batch = make_batch_for(subject.objective, seed)
            sizes = batch.groups.size[batch.groups.index].tolist()
            scale = torch.tensor([factor(size) for size in sizes], dtype=torch.float64)
            assert_each_close(subject.objective.credit(batch), other.credit(batch) * scale[:, None])
