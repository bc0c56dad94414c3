"""Claims of the rivals of J_Q that learn from the likelihood: their targets, and their coefficients digit by digit."""

import itertools
from decimal import Decimal, getcontext

import torch

from qredit.core.chain import per_span
from qredit.core.objective import Objective
from qredit.core.surrogate import log_likelihood
from qredit.credit.log_likelihood import (
    answer_log_likelihood,
    subtract_reference_log_ratio,
    supervised_answer,
    weigh_by_ratio,
)
from qredit.objectives import jepo, logprob
from qredit.testing.laws import StageSubject, Subject
from qredit.testing.laws.values import NO_ANSWER, NO_LIKELIHOOD

getcontext().prec = 60
LIKELY = (NO_LIKELIHOOD, NO_ANSWER)


# --- exact gradients of the targets, by differentiating the enumerated expectation itself


def _gradient(policy, value):
    """-∇ of `value`(log p(z), log w), a differentiable expectation over the policy's rationales."""

    def expectation(theta):
        tokens, answers = policy.token_logps(theta)
        return value(tokens[:, : policy.length].sum(1), answers[:, 0])

    return -torch.autograd.functional.jacobian(expectation, policy.theta)


def mean_log_likelihood(policy, rollouts):
    """-∇E[log w]."""
    return _gradient(policy, lambda log_p, log_w: (log_p.exp() * log_w).sum())


def mean_log_of_the_mean(policy, rollouts):
    """-∇E[log w̄] over all groups of that many rationales."""
    groups = torch.tensor(list(itertools.product(range(policy.rationales), repeat=rollouts)))

    def value(log_p, log_w):
        log_mean = torch.logsumexp(log_w[groups], 1) - torch.log(torch.tensor(float(rollouts)))
        return (log_p[groups].sum(1).exp() * log_mean).sum()

    return _gradient(policy, value)


# --- coefficients of a group from its log-likelihoods, in decimal arithmetic


def logprob_weights(log_w):
    """log w less the mean of the others', and 1; rows with w = 0 are left out."""
    known = [value for value in log_w if value > -float("inf")]
    centred = []
    for value in log_w:
        others = list(known)
        if value == -float("inf"):
            centred.append(0.0)
            continue
        others.remove(value)
        mean = sum(map(Decimal, others)) / len(others) if others else Decimal(0)
        centred.append(float(Decimal(value) - mean))
    return centred, [float(value > -float("inf")) for value in log_w]


def jepo_weights(log_w, floor=100):
    """M·(log w̄ - log w̄_¬m), the others no lower than `floor` below the row, and w/w̄."""
    w, size = [Decimal(value).exp() for value in log_w], len(log_w)
    mean = sum(w) / size
    gains = []
    for row, own in enumerate(w):
        others = max(sum(w[:row] + w[row + 1 :]) / (size - 1), own * Decimal(-floor).exp())
        gains.append(float(size * (((size - 1) * others + own) / (size * others)).ln()) if others else 0.0)
    return gains, [float(own / mean) if own else 0.0 for own in w]


# --- LaTRO, row by row


def latro_credit(batch, beta, sft):
    """RLOO on log w - beta·(log p(z) - log p_ref(z)), and sft on the answer; both times the ratio of the rationale."""
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    drawn = batch.rationale & batch.sampled
    for row in range(len(batch.group)):
        members = [other for other in range(len(batch.group)) if batch.group[other] == batch.group[row]]
        made = {}
        for member in members:
            drift = (batch.logp - batch.extra["logp@reference"])[member, drawn[member]].sum()
            made[member] = float(batch.answer_logp[member] - beta * drift)
        others = [made[member] for member in members if member != row]
        ratio = min(float((batch.logp - batch.sampler_logp)[row, drawn[row]].sum().exp()), 3.0)
        baseline = sum(others) / len(others) if others else 0.0
        credit[row, drawn[row]] = ratio * (made[row] - baseline)
        credit[row, batch.answer[row]] = ratio * sft
    return credit


LOGPROB_PLAIN = Objective(
    per_span(rationale=answer_log_likelihood() | weigh_by_ratio(), answer=supervised_answer() | weigh_by_ratio()),
    log_likelihood(),
)
BATTERY: tuple[Subject, ...] = (
    Subject(
        logprob(),
        target=mean_log_likelihood,
        target_off_policy=True,
        limit=lambda policy: mean_log_likelihood(policy, 0),
        weights=logprob_weights,
        plain=LOGPROB_PLAIN,
        zero=LIKELY,
    ),
    Subject(logprob(beta=0.05, sft=0.5), reference=lambda batch: latro_credit(batch, 0.05, 0.5), zero=(NO_ANSWER,)),
    Subject(logprob(beta=0.05, sft=0.0), reference=lambda batch: latro_credit(batch, 0.05, 0.0)),
    Subject(
        jepo(),
        target=mean_log_of_the_mean,
        limit=lambda policy: policy.loss_gradient(1.0),
        weights=jepo_weights,
        zero=LIKELY,
    ),
    Subject(jepo(floor=2.0), weights=lambda log_w: jepo_weights(log_w, 2), zero=LIKELY),
)
STAGES: tuple[StageSubject, ...] = (
    StageSubject(weigh_by_ratio(), linear=True),
    StageSubject(subtract_reference_log_ratio(0.1)),
)
