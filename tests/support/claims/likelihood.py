"""Claims of the rivals of J_Q that learn from the likelihood: their targets, and their coefficients digit by digit."""

import itertools
import math
import statistics
from dataclasses import replace
from decimal import Decimal, getcontext

import torch

from qredit.core.chain import per_span, tempered
from qredit.core.objective import Objective
from qredit.core.surrogate import log_likelihood
from qredit.credit.likelihood import amplified_likelihood
from qredit.credit.log_likelihood import (
    answer_log_likelihood,
    subtract_reference_log_ratio,
    supervised_answer,
    weigh_by_ratio,
)
from qredit.credit.rationalise import rationalise_failures
from qredit.objectives import garl, geometric_mean, jepo, logprob, opsd, paft, rft, sft_answer, star
from qredit.testing.laws import StageSubject, Subject
from qredit.testing.laws.values import NO_ANSWER, NO_LIKELIHOOD, UNSCORED

getcontext().prec = 60
LIKELY = (NO_LIKELIHOOD, NO_ANSWER)


# --- exact gradients of the targets, by differentiating the enumerated expectation itself


def _gradient(policy, value):
    """-∇ of `value`(log p(z), log w), a differentiable expectation over the policy's rationales."""

    def expectation(theta):
        tokens, answers = policy.token_logps(theta)
        return value(policy.path_logps(tokens), answers[:, : policy.right].logsumexp(1))

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


def mean_log_likelihood_of_fixed_rationales(policy, rollouts):
    """-E[∇log w], the rationales' distribution held fixed."""
    return _gradient(policy, lambda log_p, log_w: (log_p.detach().exp() * log_w).sum())


def tempered_loss(q, power):
    """∇ of (1 - P_τ^{1-q})/(1-q), P_τ = E[w^τ]; at q = 1 of -log P_τ."""

    def gradient(policy, rollouts=0):
        def value(log_p, log_w):
            success = (log_p + power * log_w).exp().sum()
            return success.log() if q == 1.0 else success ** (1 - q) / (1 - q)

        return _gradient(policy, value)

    return gradient


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


def tempered_weights(q, power, normalize=True):
    """GARL's c_m and a_m from w^τ, and τ·a_m on the answer."""

    def weights(log_w):
        w, size = [(Decimal(value) * Decimal(power)).exp() for value in log_w], len(log_w)
        mean, scale = sum(w) / size, Decimal(size) ** -Decimal(q) if normalize else Decimal(1)
        others = [sum(w[:row] + w[row + 1 :]) / (size - 1) for row in range(size)]
        amplified = [own / mean ** Decimal(q) * scale if own else Decimal(0) for own in w]
        baseline = [rest ** (1 - Decimal(q)) * scale if rest else Decimal(0) for rest in others]
        centred = [float(a - b) for a, b in zip(amplified, baseline, strict=True)]
        return centred, [float(a * Decimal(power)) for a in amplified]

    return weights


# --- formulas, row by row


def group_of(batch, row):
    return [other for other in range(len(batch.group)) if batch.group[other] == batch.group[row]]


def ratio_of(batch, row):
    """The ratio of the sampled rationale tokens, cut at 3."""
    drawn = (batch.rationale & batch.sampled)[row]
    return min(float((batch.logp - batch.sampler_logp)[row, drawn].sum().exp()), 3.0)


def geometric_credit(batch, pathwise):
    """Standardised w^{1/|y|} on the rationale, `pathwise` on the answer, both times the ratio."""
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    reward = [
        math.exp(float(log_w) / int(own.sum())) for log_w, own in zip(batch.answer_logp, batch.answer, strict=True)
    ]
    for row in range(len(batch.group)):
        rewards = [reward[member] for member in group_of(batch, row)]
        spread = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
        ratio = ratio_of(batch, row)
        standardised = (reward[row] - statistics.fmean(rewards)) / (spread + 1e-4)
        credit[row, (batch.rationale & batch.sampled)[row]] = ratio * standardised
        credit[row, batch.answer[row]] = ratio * pathwise
    return credit


def tempered_paft_credit(batch, q, power):
    """PAFT of a batch whose likelihoods are w^τ, and τ times that on the answer."""
    credit = paft(q).credit(replace(batch, answer_logp=power * batch.answer_logp)).double()
    return torch.where(batch.answer, power * credit, credit)


def opsd_loss(logp, batch):
    """-(log p_T - log p) · ratio · log p of each sampled token, the factors but log p constant, and their mean."""
    advantage = batch.extra["logp@hint"] - batch.logp
    ratio = (logp.detach() - batch.sampler_logp).exp().clamp(max=2.0)
    return -(advantage * ratio * logp)[batch.sampled].sum() / batch.sampled.sum()


def star_credit(batch):
    """1 on right plain rollouts, and on right hinted ones of groups without a right plain one."""
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row in range(len(batch.group)):
        solved = any(batch.reward[other] == 1 and not batch.proposal[other] for other in group_of(batch, row))
        if batch.reward[row] == 1 and not (batch.proposal[row] and solved):
            credit[row, batch.sampled[row]] = 1.0
    return credit


def star_loss(logp, batch):
    """The mean of -log p over the tokens that `star_credit` marks."""
    marked = star_credit(batch) == 1
    return -logp[marked].sum() / marked.sum()


def rft_loss(logp, batch):
    """The mean of -log p over the sampled tokens of right rollouts."""
    right = batch.sampled & (batch.reward == 1)[:, None]
    return -logp[right].sum() / right.sum()


def latro_credit(batch, beta, sft):
    """RLOO on log w - beta·(log p(z) - log p_ref(z)), and sft on the answer; both times the ratio of the rationale."""
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    drawn = batch.rationale & batch.sampled
    for row in range(len(batch.group)):
        made = {}
        for member in group_of(batch, row):
            drift = (batch.logp - batch.extra["logp@reference"])[member, drawn[member]].sum()
            made[member] = float(batch.answer_logp[member] - beta * drift)
        others = [made[member] for member in made if member != row]
        baseline = sum(others) / len(others) if others else 0.0
        credit[row, drawn[row]] = ratio_of(batch, row) * (made[row] - baseline)
        credit[row, batch.answer[row]] = ratio_of(batch, row) * sft
    return credit


LOGPROB_PLAIN = Objective(
    per_span(rationale=answer_log_likelihood() | weigh_by_ratio(), answer=supervised_answer() | weigh_by_ratio()),
    log_likelihood(),
)


def plug_in(q, power):
    """Tempered GARL without its baseline and without 1/M^q."""
    source = tempered(power, amplified_likelihood(q, normalize=False))
    return Objective(per_span(rationale=source, answer=power * source), log_likelihood())


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
    Subject(
        sft_answer(),
        target=mean_log_likelihood_of_fixed_rationales,
        target_off_policy=True,
        limit=lambda policy: mean_log_likelihood_of_fixed_rationales(policy, 0),
        weights=lambda log_w: ([0.0] * len(log_w), logprob_weights(log_w)[1]),
        zero=LIKELY,
        unused=frozenset({"answer_logp"}),
    ),
    Subject(geometric_mean(), reference=lambda batch: geometric_credit(batch, 0.0), zero=LIKELY),
    Subject(geometric_mean(pathwise=True), reference=lambda batch: geometric_credit(batch, 1.0), zero=(NO_ANSWER,)),
    Subject(
        garl(0.0, normalize=False, temper=0.5),
        target=tempered_loss(0.0, 0.5),
        target_off_policy=True,
        limit=tempered_loss(0.0, 0.5),
        plain=plug_in(0.0, 0.5),
        zero=LIKELY,
    ),
    *(
        Subject(
            garl(q, normalize=False, temper=0.25),
            limit=tempered_loss(q, 0.25),
            weights=tempered_weights(q, 0.25, normalize=False),
            plain=plug_in(q, 0.25),
            zero=LIKELY,
        )
        for q in (0.75, 1.0)
    ),
    Subject(garl(0.5, temper=0.1), weights=tempered_weights(0.5, 0.1), zero=LIKELY),
    Subject(paft(0.75, temper=0.1), reference=lambda batch: tempered_paft_credit(batch, 0.75, 0.1), zero=LIKELY),
    Subject(star(), reference=star_credit, loss=star_loss, zero=(UNSCORED,), binary=True),
    Subject(
        opsd(),
        reference=lambda batch: (batch.extra["logp@hint"] - batch.logp) * batch.sampled,
        loss=opsd_loss,
    ),
    Subject(
        rft(),
        reference=lambda batch: (batch.sampled & (batch.reward == 1)[:, None]).double(),
        loss=rft_loss,
        zero=(UNSCORED,),
        binary=True,
    ),
)
STAGES: tuple[StageSubject, ...] = (
    StageSubject(weigh_by_ratio(), linear=True),
    StageSubject(subtract_reference_log_ratio(0.1)),
    StageSubject(rationalise_failures()),
)
