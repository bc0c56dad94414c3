"""Laws of rationales from two sources, policy and proposal: exact moments over all groups of four, two of each."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.testing.laws.assertions import assert_close
from qredit.testing.laws.estimator import TABLE, TWO_SYMBOLS, perturb_policy
from qredit.testing.laws.subject import MixtureClaims, MixtureWeights, Subject
from qredit.testing.moments import (
    Moments,
    Proposal,
    compute_moments,
    enumerate_mixed_groups,
    exact_moments,
    group_gradients,
    integrate_over_draws,
)
from qredit.testing.policy import EnumerablePolicy

M, K = 4, 2
POLICIES: tuple[EnumerablePolicy, ...] = (TABLE, TWO_SYMBOLS)


def make_proposal(policy: EnumerablePolicy) -> Proposal:
    """The policy behind another prompt: other probabilities of the same strings, far from its own."""
    generator = torch.Generator().manual_seed(5)
    step = torch.randn(len(policy.theta), dtype=torch.float64, generator=generator)
    return Proposal(dataclasses.replace(policy, theta=policy.theta + step), K)


def unbiased_at_q_zero(subject: Subject) -> None:
    """At q = 0 the mean is ∇ℓ_0, also over rollouts of an older policy."""
    for policy in POLICIES:
        for sampler in (None, perturb_policy(policy)):
            mean = exact_moments(subject.objective, policy, M, sampler, make_proposal(policy)).mean
            assert_close(mean, policy.loss_gradient(0.0), 1e-5, "the mean gradient with a proposal and ∇ℓ_0")


def baseline_changes_no_mean(subject: Subject) -> None:
    """With and without the baseline the mean is the same, also over rollouts of an older policy."""
    plain = _claims(subject).plain
    assert plain is not None
    for policy in POLICIES:
        for sampler in (None, perturb_policy(policy)):
            with_it = exact_moments(subject.objective, policy, M, sampler, make_proposal(policy)).mean
            without = exact_moments(plain, policy, M, sampler, make_proposal(policy)).mean
            assert_close(with_it, without, 1e-5, "the means with a proposal")


def mean_over_draws_is_the_plug_in(subject: Subject) -> None:
    """On every group of both sources the mean over the objective's own draws is the plug-in's gradient."""
    plug_in = _claims(subject).plug_in
    assert plug_in is not None
    for sampler in (None, perturb_policy(TABLE)):
        proposal = make_proposal(TABLE)
        every = enumerate_mixed_groups(TABLE, proposal, M, with_response=False)
        expected = group_gradients(plug_in, TABLE, every.members, sampler=sampler, proposal=proposal)
        mean, _ = integrate_over_draws(subject.objective, TABLE, every.members, sampler, proposal)
        assert_close(mean, expected, 1e-5, "the mean over the draws and the plug-in with a proposal")


def moments_are_those_of_the_formula(subject: Subject) -> None:
    """Mean and variance over all groups are those of the formula written a second time, row by row."""
    weights = _claims(subject).weights
    assert weights is not None
    for policy in POLICIES:
        found = exact_moments(subject.objective, policy, M, proposal=make_proposal(policy))
        expected = formula_moments(weights, policy, make_proposal(policy))
        assert_close(found.mean, expected.mean, 1e-5, "the mean and that of the formula")
        variances = torch.tensor([found.variance]), torch.tensor([expected.variance])
        assert_close(*variances, 1e-5, "the variance and that of the formula")


def formula_moments(weights: MixtureWeights, policy: EnumerablePolicy, proposal: Proposal) -> Moments:
    """Mean and variance of -(1/M) Σ_m [c_m ∇log p(z_m) + a_m ∇log p(y*|z_m)], c and a by `weights`.

    Args:
        weights: log w, log u of a group → c and a of each row.
        policy: whose every trajectory can be listed.
        proposal: draws the last rationales of a group, the policy shown the gold answer.
    """
    every = enumerate_mixed_groups(policy, proposal, M, with_response=False)
    tokens, answers = policy.scores
    thought, answered = tokens[:, policy.drawn].sum(1), answers[:, 0]
    drawn = [row >= M - proposal.count for row in range(M)]
    values = []
    for members in every.members:
        z = (members // policy.answers).tolist()
        w, p, r = (table[z].tolist() for table in (policy.answer_logp[:, 0].exp(), policy.prior, proposal.policy.prior))
        c, a = weights(w, p, r, drawn)
        values.append(-(_column(c) * thought[z] + _column(a) * answered[z]).sum(0) / M)
    return compute_moments(torch.stack(values), every.probability)


def _column(values: Sequence[float]) -> Float[Tensor, "M 1"]:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def _claims(subject: Subject) -> MixtureClaims:
    assert subject.mixture is not None
    return subject.mixture
