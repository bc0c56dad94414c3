"""When amplification is real: P^{-q} where likelihood is graded, no more than about M^q where success is sparse."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from qredit.core.tsallis import amplification
from qredit.lab.finding import Claim, Curve, Finding, FindingPanel, make_claim, make_q_curve
from qredit.lab.policies import HIT_LIKELIHOOD, make_graded_policy, make_sparse_policy
from qredit.objectives import garl
from qredit.testing.moments import exact_moments
from qredit.testing.policy import EnumerablePolicy, TabularPolicy

THEOREM = "E[ĝ] exceeds the RL gradient by P^{-q} if likelihood is graded, by about M^q if it is sparse and M·P ≪ 1"
GRADED_TOLERANCE, SPARSE_TOLERANCE, MANY_TOLERANCE = 0.05, 0.05, 0.1
SUCCESSES = torch.logspace(-8, -0.45, 16, dtype=torch.float64)
SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
RARE, COLD = 0.05, 1e-5  # P of the measurement against M, and of the table
UNSEEN = 0.01  # M·P below which success counts as never sampled


REGIMES: Mapping[str, Callable[[float], TabularPolicy]] = {"graded": make_graded_policy, "sparse": make_sparse_policy}


@dataclass(frozen=True)
class AmplificationRow:
    """The factor by which GARL's expected gradient exceeds ∇ℓ_0, beside P^{-q} and the limit (M/0.9)^q."""

    regime: str
    q: float
    m: int
    p: float
    amplification: float
    unlimited: float
    limit: float


def measure(commitments: Sequence[float] = (0.25, 0.5, 0.75, 1.0), rollouts: int = 32) -> Finding:
    """Expected amplification A = ⟨E ĝ, ∇ℓ_0⟩ / |∇ℓ_0|², by listing every multiset of rollouts.

    GARL without the factor 1/M^q. In the sparse policy all success sits on one rationale with w = 0.9, so that
    A = E[w / w̄^q] / P = E[w̄^{1-q}] / P for q < 1; a group that holds it once has w̄ = 0.9/M, hence A → (M/0.9)^q as
    M·P → 0. With the factor 1/M^q that is 0.9^{-q}: near 1 for every q, as at q = 0. At q = 1 a group without it counts
    in full too, whatever its likelihoods, which leaves (M-1)/0.9.

    Args:
        commitments: values of q above 0.
        rollouts: M of the measurement against P.

    Source: ours; the paper's amplification P^{-q} is the limit M → ∞.
    """
    over_p = [_amplified(name, q, rollouts, float(p)) for name in REGIMES for q in commitments for p in SUCCESSES]
    over_m = [_amplified("sparse", q, m, RARE) for q in commitments for m in SIZES]
    return Finding(
        theorem=THEOREM,
        claims=tuple(_claims(over_p, over_m)),
        tables={"amplification": [_amplified(name, q, rollouts, COLD) for q in commitments for name in REGIMES]},
        panels=(
            _panel(f"M = {rollouts} rollouts", "P, success probability", [(one.p, one) for one in over_p]),
            _panel(f"sparse, P = {RARE:g}", "M, rollouts", [(one.m, one) for one in over_m], SIZES),
        ),
    )


def expected_amplification(policy: EnumerablePolicy, q: float, rollouts: int) -> float:
    """The component of GARL's expected gradient along ∇ℓ_0, as a multiple of ∇ℓ_0.

    Args:
        policy: whose every trajectory can be listed.
        q: commitment, 0 … 1.
        rollouts: M, the size of a group.
    """
    target = policy.loss_gradient(0.0)
    return float(exact_moments(garl(q, normalize=False), policy, rollouts).mean @ target / target.square().sum())


def _amplified(regime: str, q: float, rollouts: int, p: float) -> AmplificationRow:
    measured = expected_amplification(REGIMES[regime](p), q, rollouts)
    return AmplificationRow(regime, q, rollouts, p, measured, amplification(p, q), (rollouts / HIT_LIKELIHOOD) ** q)


def _claims(over_p: Sequence[AmplificationRow], over_m: Sequence[AmplificationRow]) -> Iterator[Claim]:
    spread = [(one.amplification, one.unlimited) for one in over_p if one.regime == "graded"]
    rare = [one for one in over_p if one.regime == "sparse"]
    unseen = [(one.amplification, one.limit) for one in rare if one.m * one.p <= UNSEEN]
    seen = [(one.amplification, one.unlimited) for one in over_m if one.m == SIZES[-1]]
    for text, pairs, tolerance in (
        ("P^{-q} at every P where graded", spread, GRADED_TOLERANCE),
        (f"(M/{HIT_LIKELIHOOD:g})^q where sparse and M·P ≤ {UNSEEN:g}", unseen, SPARSE_TOLERANCE),
        (f"P^{{-q}} again where sparse and M·P = {RARE * SIZES[-1]:.3g}", seen, MANY_TOLERANCE),
    ):
        measured, expected = zip(*pairs, strict=True)
        yield make_claim(text, measured, expected, tolerance, relative=True)


def _panel(
    title: str, x: str, found: Sequence[tuple[float, AmplificationRow]], ticks: tuple[float, ...] = ()
) -> FindingPanel:
    curves: list[Curve] = []
    for regime, q in dict.fromkeys((one.regime, one.q) for _, one in found):
        at, own = zip(*((at, one) for at, one in found if (one.regime, one.q) == (regime, q)), strict=True)
        curves.append(make_q_curve(q, "P^-q", at, [one.unlimited for one in own], line=True))
        curves.append(make_q_curve(q, "(M/0.9)^q", at, [one.limit for one in own], line=True))
        curves.append(make_q_curve(q, regime, at, [one.amplification for one in own]))
    return FindingPanel(title, x, "expected amplification", tuple(curves), x_ticks=ticks)
