"""What is claimed of every registered objective and stage: a line each. The laws are in qredit.testing.laws."""

from decimal import Decimal, getcontext

from qredit.core.chain import on_span, per_span
from qredit.core.objective import Objective
from qredit.credit.group import (
    center_and_scale_by_group_mean,
    center_by_group,
    scale_by_batch_std,
    scale_by_group_std,
    subtract_mean_of_others,
)
from qredit.credit.likelihood import (
    amplified_likelihood,
    resample_by_likelihood,
    subtract_likelihood_baseline,
)
from qredit.credit.reward import reward
from qredit.credit.running import subtract_running_mean
from qredit.objectives import dapo, dr_grpo, garl, grpo, maxrl, paft, rloo, sft_then_rlvr, verifree
from qredit.testing.laws import StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, NO_ANSWER, NO_LIKELIHOOD, NO_SUCCESS, UNSCORED
from tests.support.claims import group as group_claims
from tests.support.claims import likelihood as likelihood_claims
from tests.support.claims import mixture as mixture_claims
from tests.support.claims import penalty as penalty_claims
from tests.support.claims import reward as reward_claims
from tests.support.claims import step as step_claims
from tests.support.claims import token as token_claims
from tests.support.claims import turn as turn_claims
from tests.support.claims import turn_rules as turn_rule_claims

getcontext().prec = 60
COMMITMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
BRANCHES = (0.0, 0.5, 1.0)  # of the code: what varies with q between its ends is held by the laws of the mean and bias


# --- advantages of a right and of a wrong rollout, k of m right, 0/1 rewards: the methods' formulas


def standardised(k: int, m: int) -> tuple[float, float]:
    """(r - mean) / (std + 1e-4), std with n - 1."""
    mean = k / m
    std = (mean * (1 - mean) * m / (m - 1)) ** 0.5
    return (1 - mean) / (std + 1e-4), -mean / (std + 1e-4)


def centred(k: int, m: int) -> tuple[float, float]:
    """r - mean."""
    return 1 - k / m, -k / m


def less_the_others(k: int, m: int) -> tuple[float, float]:
    """r - mean of the other rewards."""
    return 1 - (k - 1) / (m - 1), -k / (m - 1)


def over_the_mean(k: int, m: int) -> tuple[float, float]:
    """(r - mean) / mean; 0 without a success."""
    return (m / k - 1, -1.0) if k else (0.0, 0.0)


# --- exact coefficients of a group, from its log-likelihoods, in decimal arithmetic


def garl_weights(q: float, normalize: bool = True, pathwise: bool = True):
    """c_m and a_m of GARL, straight from its definition."""

    def weights(log_w):
        w = [Decimal(value).exp() for value in log_w]
        m, commitment = len(w), Decimal(q)
        mean = sum(w) / m
        scale = Decimal(m) ** -commitment if normalize else Decimal(1)
        others = [sum(w[:row] + w[row + 1 :]) / (m - 1) for row in range(m)]  # Σ - own would cancel
        amplified = [own / mean**commitment * scale if own else Decimal(0) for own in w]
        baseline = [rest ** (1 - commitment) * scale if rest else Decimal(0) for rest in others]
        return _floats(a - b for a, b in zip(amplified, baseline, strict=True)), _floats(
            amplified if pathwise else [Decimal(0)] * m
        )

    return weights


def _floats(values):
    return [float(value) for value in values]


# --- the claims


def plug_in(q: float, normalize: bool = True) -> Objective:
    """GARL without its baseline: a_m on both spans."""
    source = amplified_likelihood(q, normalize)
    return Objective(per_span(rationale=source, answer=source))


def power(q: float):
    """The factor 1/M^q."""
    return lambda m: m**-q


def one(m: int) -> float:
    """Equal."""
    return 1.0


REWARDED, LIKELY = (EQUAL_REWARDS, UNSCORED), (NO_LIKELIHOOD, NO_ANSWER)
RAW_REWARD = Objective(on_span("sampled", reward()))
_FOUNDATION = (
    Subject(grpo(), advantage=standardised, loss_scale=lambda tokens: 1 / tokens, zero=REWARDED),
    Subject(dapo(), advantage=standardised, loss_scale=lambda tokens: 1 / tokens, zero=REWARDED),
    Subject(dr_grpo(length=8), advantage=centred, loss_scale=lambda tokens: 1 / 8, zero=REWARDED),
    Subject(rloo(), advantage=less_the_others, plain=RAW_REWARD, zero=REWARDED),
    Subject(maxrl(), advantage=over_the_mean, zero=(*REWARDED, NO_SUCCESS)),
    Subject(verifree(), commitment=0.0, plain=plug_in(0.0), weights=garl_weights(0.0), zero=LIKELY),
    *(
        Subject(
            garl(q, normalize=False),
            commitment=q,
            plain=plug_in(q, normalize=False),
            weights=garl_weights(q, normalize=False),
            zero=LIKELY,
        )
        for q in COMMITMENTS
    ),
    *(
        Subject(garl(q), weights=garl_weights(q), equals=((garl(q, normalize=False), power(q)),), zero=LIKELY)
        for q in BRANCHES
    ),
    Subject(garl(0.0), equals=((verifree(), one),)),
    Subject(garl(0.5, pathwise=False), weights=garl_weights(0.5, pathwise=False), zero=LIKELY),
    *(
        Subject(paft(q), plug_in=plug_in(q), equals=((paft(q, normalize=False), power(q)),), zero=LIKELY)
        for q in BRANCHES
    ),
    Subject(paft(0.5, resamples=2), plug_in=plug_in(0.5), zero=LIKELY),
    Subject(sft_then_rlvr().at(0.0), weights=garl_weights(1.0), equals=((garl(1.0), one),), zero=LIKELY),
    Subject(sft_then_rlvr().at(0.5), weights=garl_weights(0.0), equals=((garl(0.0), one),), zero=LIKELY),
)
_FOUNDATION_STAGES = (
    StageSubject(center_by_group(), linear=True),
    StageSubject(subtract_mean_of_others(), linear=True),
    StageSubject(scale_by_group_std()),
    StageSubject(center_and_scale_by_group_mean()),
    StageSubject(scale_by_batch_std()),
    StageSubject(subtract_running_mean()),
    StageSubject(subtract_likelihood_baseline(0.5)),
    StageSubject(resample_by_likelihood(), linear=True),
    *(
        StageSubject(on_span(span, resample_by_likelihood()), linear=True, span=span)
        for span in ("rationale", "answer")
    ),
    *(StageSubject(on_span(span, center_by_group()), linear=True, span=span) for span in ("sampled", "close")),
)

FAMILIES = (
    *(likelihood_claims, mixture_claims, group_claims, token_claims),
    *(step_claims, turn_claims, turn_rule_claims, penalty_claims, reward_claims),
)
BATTERY = (*_FOUNDATION, *(subject for family in FAMILIES for subject in family.BATTERY))
STAGES = (*_FOUNDATION_STAGES, *(subject for family in FAMILIES for subject in family.STAGES))
