"""GARL, PAFT, GRPO and RLOO proved by listing every pool of rollouts of a small policy, and mutants that must fail.

Each law is a function of an objective that raises AssertionError when it does not hold. The mutants at the end are the
estimators with one thing wrong; every one of them is caught by a law that the right form passes.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from qredit import Objective, tsallis
from qredit.chain import Coefficient, Source, per_span
from qredit.credit.likelihood import (
    amplified_likelihood,
    attenuated_likelihood,
    log_weight,
    resample_by_likelihood,
    subtract_likelihood_baseline,
)
from qredit.lab.moments import compositions, exact_moments, gradients, moments, pool_batch, pools
from qredit.lab.policy import TabularPolicy
from qredit.objectives import garl, grpo, paft, rloo

POLICY = TabularPolicy.random(seed=1)
SMALL = TabularPolicy.random(seed=2, symbols=3, length=1)
COMMITMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def close(actual, expected, within=3e-6):
    """Equal to float32's precision, relative to the larger of the two."""
    scale = max(float(expected.norm()), float(actual.norm()), 1e-12)
    assert float((actual - expected).norm()) <= within * scale, float((actual - expected).norm()) / scale


# --- the laws


def law_unbiased_at_q_zero(objective):
    for rollouts in (2, 3):
        close(exact_moments(objective, POLICY, rollouts, False).mean, POLICY.loss_gradient(0.0))


def law_baseline_changes_no_mean(objective, q):
    plain = Objective(_both_spans(amplified_likelihood(q, normalize=False)))
    for rollouts in (2, 4):
        with_baseline = exact_moments(objective, SMALL, rollouts, False)
        without = exact_moments(plain, SMALL, rollouts, False)
        close(with_baseline.mean, without.mean)
        if q == 0.0:
            assert with_baseline.variance < without.variance


def law_leading_bias(objective, q):
    """M·(E[ĝ] - ∇ℓ_q), extrapolated to M → ∞, is the formula's coefficient."""
    coefficient = _bias_coefficient(objective, q)
    close(coefficient, tsallis.estimator_bias(SMALL.prior, SMALL.answer_logp[:, 0].exp(), _joint_score(SMALL), q), 0.02)


def law_mean_over_draws_is_garl_plug_in(objective, q):
    """E[PAFT | pool] = GARL with c_m := a_m, on every pool; and the total variance is no smaller."""
    plug_in = Objective(_both_spans(amplified_likelihood(q)))
    for rollouts in (2, 3):
        every = pools(SMALL, rollouts, False)
        expected = gradients(plug_in, SMALL, every.members, False)
        mean, second = _over_draws(objective, every.members)
        close(mean, expected)
        paft_variance = float(every.probability @ (second - (every.probability @ mean).square().sum()))
        assert paft_variance >= moments(expected, every.probability).variance * (1 - 1e-6)


def law_unbiased_for_expected_reward(objective):
    for rollouts in (2, 3):
        close(exact_moments(objective, SMALL, rollouts, True).mean, SMALL.loss_gradient(0.0))


# --- the proofs


def test_garl_at_q_zero_is_unbiased_for_every_group_size():
    law_unbiased_at_q_zero(garl(0.0))


@pytest.mark.parametrize("q", COMMITMENTS)
def test_garl_baseline_changes_no_mean(q):
    law_baseline_changes_no_mean(garl(q, normalize=False), q)


@pytest.mark.parametrize("q", [0.25, 0.5, 0.75, 1.0])
def test_garl_has_the_leading_bias_of_the_formula(q):
    law_leading_bias(garl(q, normalize=False), q)


@pytest.mark.parametrize("q", COMMITMENTS)
def test_paft_is_garl_plug_in_on_average_and_no_less_variable(q):
    law_mean_over_draws_is_garl_plug_in(paft(q), q)
    law_mean_over_draws_is_garl_plug_in(paft(q, resamples=2), q)


@pytest.mark.parametrize("q", COMMITMENTS)
def test_normalize_is_the_factor_m_to_the_minus_q(q):
    members = pools(SMALL, 3, False).members
    for make in (garl, paft):
        plain = gradients(make(q, normalize=False), SMALL, members, False)
        close(gradients(make(q), SMALL, members, False), plain * 3**-q)


def test_rloo_is_unbiased_for_the_expected_reward():
    law_unbiased_for_expected_reward(rloo())


def test_grpo_climbs_twice_the_arcsine_of_root_p_for_large_groups():
    """With 0/1 rewards, dividing by the std makes F = 2·arcsin √p, so ∇F = ∇p / √(p(1-p)).

    Per success count k of M the advantages are known, which gives the exact mean: E[ω(k/M)/(p(1-p))]·∇p over
    k ~ Binomial(M, p); the enumeration must agree with it, tokens divided by the row's length.
    """
    policy, rollouts = SMALL, 4
    p = policy.success
    expected = 0.0
    for k in range(1, rollouts):
        binomial = (
            torch.exp(
                torch.lgamma(torch.tensor(rollouts + 1.0))
                - torch.lgamma(torch.tensor(k + 1.0))
                - torch.lgamma(torch.tensor(rollouts - k + 1.0))
            ).double()
            * p**k
            * (1 - p) ** (rollouts - k)
        )
        rate = k / rollouts
        std = (rate * (1 - rate) * rollouts / (rollouts - 1)) ** 0.5
        expected += float(binomial) * rate * (1 - rate) / (std + 1e-4) / (p * (1 - p))
    tokens = policy.length + 1  # the forced closing symbol is no token that learns
    close(exact_moments(grpo(), policy, rollouts, True).mean * tokens, expected * policy.loss_gradient(0.0))


# --- mutants: each is one mistake away from the estimator


@dataclass(frozen=True)
class _total_less_own(Source):
    """GARL's rationale part with the leave-one-out mean taken as Σ - w_m."""

    q: float
    needs = frozenset({"answer_logp"})

    def __call__(self, batch):
        log_w, keep = log_weight(batch, "mutant")
        w, size = log_w.exp(), batch.groups.count(keep)
        others = (batch.groups.total(w, keep) - w) / (size - 1)
        amplified = w / batch.groups.mean(w, keep) ** self.q
        return Coefficient((amplified - others.clamp(min=0) ** (1 - self.q))[:, None])


@dataclass(frozen=True)
class _leaky(Source):
    """A source that answers for tokens it was not given: as if the span operator ignored its span."""

    inner: Source
    needs = frozenset({"answer_logp"})

    def __call__(self, batch):
        return self.inner(batch)


@dataclass(frozen=True)
class _plus_baseline(subtract_likelihood_baseline):
    def __call__(self, coefficient, batch):
        right = super().__call__(coefficient, batch)
        return replace(right, value=2 * coefficient.value - right.value)


@dataclass(frozen=True)
class _own_included(subtract_likelihood_baseline):
    """The baseline taken over the whole group, own row included."""

    def __call__(self, coefficient, batch):
        log_w, keep = log_weight(batch, "mutant")
        baseline = ((1 - self.q) * batch.groups.log_mean_exp(log_w, keep)).exp()
        return coefficient.with_row(coefficient.per_rollout(self)[0] - baseline)


def _garl_with(baseline, q):
    amplified = amplified_likelihood(q, normalize=False)
    return Objective(per_span(rationale=amplified | baseline, answer=amplified))


def _baseline_on_answer(q):
    centred = amplified_likelihood(q, normalize=False) | subtract_likelihood_baseline(q, normalize=False)
    return Objective(_both_spans(centred))


@pytest.mark.parametrize("q", [0.0, 0.5])
def test_a_baseline_of_the_wrong_sign_raises_the_variance_and_is_caught_by_the_second_moment(q):
    """Its mean is right: only the second moment tells. The law asks for less variance than no baseline at q = 0."""
    mutant = _garl_with(_plus_baseline(q, normalize=False), q)
    assert (
        exact_moments(mutant, SMALL, 4, False).variance
        > exact_moments(garl(q, normalize=False), SMALL, 4, False).variance
    )
    if q == 0.0:
        with pytest.raises(AssertionError):
            law_baseline_changes_no_mean(mutant, q)


@pytest.mark.parametrize("q", [0.0, 0.5])
def test_a_baseline_that_includes_its_own_row_is_caught(q):
    with pytest.raises(AssertionError):
        law_baseline_changes_no_mean(_garl_with(_own_included(q, normalize=False), q), q)


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_a_baseline_on_the_answer_part_is_caught(q):
    with pytest.raises(AssertionError):
        law_baseline_changes_no_mean(_baseline_on_answer(q), q)
    if q > 0:
        with pytest.raises(AssertionError):
            law_leading_bias(_baseline_on_answer(q), q)


def test_a_coefficient_on_forced_tokens_is_caught():
    """The same objective on batches that claim the forced closing symbol was sampled, and part of the rationale."""
    every = pools(POLICY, 2, False)
    honest = pool_batch(POLICY, every.members, False)
    claimed = replace(honest, sampled=honest.sampled | honest.close, rationale=honest.rationale | honest.close)
    touched = garl(0.0).credit(claimed)[honest.close]
    assert float(touched.abs().max()) > 0
    assert float(garl(0.0).credit(honest)[honest.close].abs().max()) == 0.0
    tokens, answers = POLICY.scores
    z = every.members.flatten() // POLICY.answers
    score = torch.cat([tokens[z], answers[z, :1]], 1)
    per_row = -torch.einsum("bt,btd->bd", garl(0.0).credit(claimed).double(), score)
    mean = every.probability @ per_row.view(*every.members.shape, -1).mean(1)
    with pytest.raises(AssertionError):
        close(mean, POLICY.loss_gradient(0.0))


@pytest.mark.parametrize("q", [0.0, 0.5])
def test_an_ignored_span_is_caught(q):
    amplified = amplified_likelihood(q, normalize=False)
    with pytest.raises(AssertionError):
        law_baseline_changes_no_mean(Objective(_leaky(amplified | subtract_likelihood_baseline(q, normalize=False))), q)


def test_a_leave_one_out_mean_taken_as_total_less_own_is_caught_where_one_row_dominates():
    """On ordinary weights it passes every law; on a dominant row the cancellation shows."""
    q = 0.95
    mutant = Objective(per_span(rationale=_total_less_own(q), answer=amplified_likelihood(q, normalize=False)))
    close(exact_moments(mutant, SMALL, 3, False).mean, exact_moments(garl(q, normalize=False), SMALL, 3, False).mean)
    skewed = replace(
        pool_batch(SMALL, torch.tensor([[0, 1, 2]]), False),
        answer_logp=torch.tensor([0.0, -69.0, -69.0], dtype=torch.float64),
    )
    right = garl(q, normalize=False).credit(skewed)[0, 0]
    assert abs(float(mutant.credit(skewed)[0, 0] - right)) > 0.02


@pytest.mark.parametrize("q", [0.25, 0.75])
def test_mutants_of_paft_are_caught(q):
    unattenuated = _both_spans(attenuated_likelihood(1.0) | resample_by_likelihood())
    with pytest.raises(AssertionError):
        law_mean_over_draws_is_garl_plug_in(Objective(unattenuated), q)
    amplified_instead = _both_spans(amplified_likelihood(q) | resample_by_likelihood())
    with pytest.raises(AssertionError):
        law_mean_over_draws_is_garl_plug_in(Objective(amplified_instead), q)


def test_grpo_is_not_unbiased_for_the_expected_reward():
    with pytest.raises(AssertionError):
        law_unbiased_for_expected_reward(grpo())


# --- how the laws reach infinity and the draws


def _both_spans(source):
    return per_span(rationale=source, answer=source)


def _joint_score(policy):
    tokens, answers = policy.scores
    return tokens[:, : policy.length].sum(1) + answers[:, 0]


def _bias_coefficient(objective, q):
    """Richardson extrapolation of M·bias from M = 8, 16, 32, exact at each by multisets."""
    target = SMALL.loss_gradient(q)
    first, second, third = (m * (exact_moments(objective, SMALL, m, False).mean - target) for m in (8, 16, 32))
    return (first - 6 * second + 8 * third) / 3


def _over_draws(objective, members):
    """Mean (N, D) of PAFT's gradient over its own draws, and mean square (N,), integrated exactly.

    The draws are replaced by every way of distributing K draws over M rows, with its multinomial probability.
    """
    source = objective.source.spans[0][1]
    stage = source.credits[0]
    size = members.shape[1]
    draws = stage.resamples or size
    batch = pool_batch(SMALL, members, False)
    weights = SMALL.answer_logp[members // SMALL.answers, 0].softmax(1)
    base = source.source(batch).value[:, 0].view(members.shape)
    score = _joint_score(SMALL)[members // SMALL.answers]
    mean = torch.zeros(len(members), score.shape[-1], dtype=torch.float64)
    second = torch.zeros(len(members), dtype=torch.float64)
    for counts in compositions(draws, size):
        n = torch.tensor(counts, dtype=torch.float64)
        log_ways = torch.lgamma(torch.tensor(draws + 1.0)).double() - torch.lgamma(n + 1).sum()
        chance = torch.exp(log_ways + (n * weights.log()).sum(1))
        gradient = -torch.einsum("nm,nmd->nd", base * n * size / draws, score) / size
        mean += chance[:, None] * gradient
        second += chance * gradient.square().sum(1)
    return mean, second


def test_the_stage_draws_with_the_probabilities_that_the_proof_assumes():
    """The frequency of each count vector over seeds, against the multinomial (χ² with 9 degrees of freedom)."""
    batch = pool_batch(SMALL, torch.tensor([[0, 3, 6]]), False)
    weights = SMALL.answer_logp[:, 0].softmax(0)
    seen: dict[tuple[int, ...], int] = {}
    trials = 3000
    for seed in range(trials):
        factor = resample_by_likelihood()(Coefficient(torch.ones(3, 1, dtype=torch.float64)), replace(batch, seed=seed))
        counts = tuple(int(c) for c in factor.value[:, 0].round())
        seen[counts] = seen.get(counts, 0) + 1
    statistic = 0.0
    for counts in compositions(3, 3):
        n = torch.tensor(counts, dtype=torch.float64)
        ways = 6 / float(torch.lgamma(n + 1).sum().exp())
        expected = trials * ways * float((weights**n).prod())
        statistic += (seen.get(counts, 0) - expected) ** 2 / expected
    assert statistic < 27.9  # χ²(9), 99.9 %
