"""Bias and variance of GARL and PAFT: the leading coefficient of the bias, and how it scales with P."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core import tsallis
from qredit.lab.finding import Claim, Curve, Finding, FindingPanel, make_claim, make_q_curve
from qredit.lab.policies import HIT_LIKELIHOOD, make_graded_policy, make_sparse_policy
from qredit.objectives import garl, paft
from qredit.stats.line_fit import fit_line
from qredit.testing.moments import Moments, enumerate_groups, exact_moments, integrate_over_draws
from qredit.testing.policy import EnumerablePolicy, TabularPolicy

THEOREM = "E[ĝ] = ∇ℓ_q + (q/(M P^{q+1})) [ ((q+1)/2) ∇ℓ_1 Var(w) - Cov(g, w) ] + O(M^-2) for GARL and PAFT"
COEFFICIENT_TOLERANCE, SLOPE_TOLERANCE, ZERO_TOLERANCE = 0.05, 0.05, 1e-5
ROLLOUTS = (2, 4, 8, 16, 32)
SUCCESSES = tuple(torch.logspace(-5, -0.4, 8, dtype=torch.float64).tolist())
FIXED_P, FIXED_M = 0.1, 16  # of the plots against M, and against P


@dataclass(frozen=True)
class Regime:
    """Policies of one kind: at which P their coefficient is measured, and with how many rollouts at most."""

    name: str
    policy: Callable[[float], TabularPolicy]
    successes: tuple[float, ...]
    rollouts: int
    exponent: Callable[[float], float]


GRADED = Regime("graded", make_graded_policy, (1e-6, 1e-3, 0.3), 32, lambda q: 1 - q)
SPARSE = Regime("sparse", make_sparse_policy, (0.2, 0.3, 0.5), 128, lambda q: -q)


@dataclass(frozen=True)
class Coefficient:
    """lim M·(E[ĝ] - ∇ℓ_q) along the formula's direction, and the formula's length.

    `m` is the largest number of rollouts of the extrapolation M, M/2, M/4; `error` is the distance between the two
    vectors as a share of the formula's length.
    """

    regime: str
    q: float
    m: int
    p: float
    coefficient: float
    formula: float
    error: float


@dataclass(frozen=True)
class Scaling:
    """The exponent of P in the formula's coefficient for P → 0."""

    regime: str
    q: float
    exponent: float
    expected: float


@dataclass(frozen=True, eq=False)
class EstimatorMoments:
    """Exact moments of both estimators at one q, M and policy, and the policy's own gradient and coefficient."""

    q: float
    at: float
    garl: Moments
    paft: Moments
    target: Float[Tensor, " D"]
    coefficient: Float[Tensor, " D"]

    def bias(self, moments: Moments) -> float:
        """|E ĝ - ∇ℓ_q| / |∇ℓ_q|."""
        return float((moments.mean - self.target).norm() / self.target.norm())


def measure(commitments: Sequence[float] = (0.25, 0.5, 0.75, 1.0)) -> Finding:
    """The bias by listing every multiset of rollouts, against the formula, in the graded and the sparse regime.

    Both estimators are taken without the factor 1/M^q. In the sparse regime with one successful rationale the
    coefficient is 0 at q = 1, which is left out there. PAFT's draws are integrated exactly.

    Source: arXiv 2604.25907, the bias of GARL and PAFT. Version 1 bounds the coefficient by a multiple of P^{-(q+1)},
    the abstract of version 2 by P^{-q}.
    """
    cells = [(r, q, p) for r in (GRADED, SPARSE) for q in _defined(r, commitments) for p in r.successes]
    rows = tuple(coefficient(regime, q, p) for regime, q, p in cells)
    scalings = tuple(_scaling(regime, q) for regime in (GRADED, SPARSE) for q in _defined(regime, commitments))
    over_m = [_cell(make_graded_policy(FIXED_P), q, m, at=m) for q in commitments for m in ROLLOUTS]
    over_p = [_cell(make_sparse_policy(p), q, FIXED_M, at=p) for q in _defined(SPARSE, commitments) for p in SUCCESSES]
    return Finding(
        theorem=THEOREM,
        claims=tuple(_claims(rows, scalings, [*over_m, *over_p])),
        tables={"rows": rows, "scaling": scalings},
        panels=(
            _bias_panel(over_m),
            _coefficient_panel(rows, commitments),
            _variance_panel(f"variance, graded, P = {FIXED_P:g}", "M, rollouts", over_m, ROLLOUTS),
            _rare_panel(over_p),
        ),
    )


def coefficient(regime: Regime, q: float, p: float) -> Coefficient:
    """Measured by Richardson extrapolation of M·(E[ĝ] - ∇ℓ_q) from M/4, M/2 and M rollouts, each exact.

    Args:
        regime: which policy: graded or sparse.
        q: commitment, 0 … 1.
        p: success probability.
    """
    policy, m = regime.policy(p), regime.rollouts
    first, second, third = (size * bias(policy, q, size) for size in (m // 4, m // 2, m))
    measured = (first - 6 * second + 8 * third) / 3
    formula = _formula(policy, q)
    length = float(formula.norm())
    along, error = float(measured @ formula) / length, float((measured - formula).norm()) / length
    return Coefficient(regime.name, q, m, p, along, length, error)


def bias(policy: EnumerablePolicy, q: float, rollouts: int) -> Float[Tensor, " D"]:
    """E[ĝ] - ∇ℓ_q of GARL, exactly.

    Args:
        policy: whose every trajectory can be listed.
        q: commitment, 0 … 1.
        rollouts: M, the size of a group.
    """
    return exact_moments(garl(q, normalize=False), policy, rollouts).mean - policy.loss_gradient(q)


def paft_moments(policy: EnumerablePolicy, q: float, rollouts: int) -> Moments:
    """Exact moments of PAFT with K = M draws, from those with one draw.

    Given the pool the draws are independent, so K of them have the mean of one and a K-th of its variance.

    Args:
        policy: whose every trajectory can be listed.
        q: commitment, 0 … 1.
        rollouts: M, the size of a group.
    """
    every = enumerate_groups(policy, rollouts, with_response=False)
    mean, square = integrate_over_draws(paft(q, resamples=1, normalize=False), policy, every.members)
    centre = mean.square().sum(1)
    total = every.probability @ mean
    return Moments(total, float(every.probability @ (centre + (square - centre) / rollouts) - total.square().sum()))


def _formula(policy: EnumerablePolicy, q: float) -> Float[Tensor, " D"]:
    return tsallis.estimator_bias(policy.prior, policy.log_w.exp(), policy.joint_score, q)


def _defined(regime: Regime, commitments: Sequence[float]) -> list[float]:
    """Commitments at which a regime's coefficient is not 0."""
    return [q for q in commitments if q > 0 and not (regime is SPARSE and q == 1.0)]


def _scaling(regime: Regime, q: float) -> Scaling:
    p = torch.logspace(-8, -4, 5, dtype=torch.float64)
    lengths = torch.stack([_formula(regime.policy(float(success)), q).norm() for success in p])
    return Scaling(regime.name, q, fit_line(p.log(), lengths.log()).slope, regime.exponent(q))


def _cell(policy: EnumerablePolicy, q: float, rollouts: int, at: float) -> EstimatorMoments:
    return EstimatorMoments(
        q,
        at,
        exact_moments(garl(q, normalize=False), policy, rollouts),
        paft_moments(policy, q, rollouts),
        policy.loss_gradient(q),
        _formula(policy, q),
    )


def _claims(
    rows: Sequence[Coefficient], scalings: Sequence[Scaling], cells: Sequence[EstimatorMoments]
) -> Iterator[Claim]:
    measured, formula = [row.coefficient for row in rows], [row.formula for row in rows]
    yield make_claim("coefficient of 1/M is the formula's", measured, formula, COEFFICIENT_TOLERANCE, relative=True)
    yield make_claim("distance of the two vectors is 0", [row.error for row in rows], 0.0, COEFFICIENT_TOLERANCE)
    found, expected = [scaling.exponent for scaling in scalings], [scaling.expected for scaling in scalings]
    yield make_claim("it grows as P^{1-q} where graded, as P^{-q} where sparse", found, expected, SLOPE_TOLERANCE)
    apart = [float((cell.garl.mean - cell.paft.mean).norm() / cell.garl.mean.norm()) for cell in cells]
    yield make_claim("PAFT has the mean of GARL", apart, 0.0, ZERO_TOLERANCE)
    policy = make_graded_policy(FIXED_P)
    still = [float(bias(policy, 0.0, m).norm() / policy.loss_gradient(0.0).norm()) for m in ROLLOUTS]
    yield make_claim("no bias at q = 0 for any M", still, 0.0, ZERO_TOLERANCE)


def _bias_panel(cells: Sequence[EstimatorMoments]) -> FindingPanel:
    curves: list[Curve] = []
    for q, own in _by_q(cells):
        line = [float(cell.coefficient.norm() / cell.target.norm()) / cell.at for cell in own]
        curves.append(make_q_curve(q, "formula, graded", ROLLOUTS, line, line=True))
        curves.append(make_q_curve(q, "GARL", ROLLOUTS, [cell.bias(cell.garl) for cell in own]))
        curves.append(make_q_curve(q, "PAFT", ROLLOUTS, [cell.bias(cell.paft) for cell in own]))
    return FindingPanel(
        f"bias, graded, P = {FIXED_P:g}", "M, rollouts", "|E ĝ - ∇ℓ_q| / |∇ℓ_q|", tuple(curves), x_ticks=ROLLOUTS
    )


def _coefficient_panel(rows: Sequence[Coefficient], commitments: Sequence[float]) -> FindingPanel:
    curves: list[Curve] = []
    p = torch.logspace(-7, -0.4, 30, dtype=torch.float64)
    for regime in (GRADED, SPARSE):
        for q in _defined(regime, commitments):
            line = [float(_formula(regime.policy(float(success)), q).norm()) for success in p]
            chosen = [row for row in rows if row.regime == regime.name and row.q == q]
            curves.append(make_q_curve(q, f"formula, {regime.name}", p, line, line=True))
            curves.append(make_q_curve(q, regime.name, [row.p for row in chosen], [row.coefficient for row in chosen]))
    return FindingPanel("coefficient of 1/M", "P, success probability", "lim M |E ĝ - ∇ℓ_q|", tuple(curves))


def _noise(moments: Moments) -> float:
    """Var ĝ / |E ĝ|²."""
    return moments.variance / float(moments.mean.square().sum())


def _rare_panel(cells: Sequence[EstimatorMoments]) -> FindingPanel:
    """The variance against P in the sparse regime: that of one hit in M groups, as long as hits are rare."""
    panel = _variance_panel(f"variance, sparse, M = {FIXED_M}", "P, success probability", cells)
    rare = [p for p in SUCCESSES if FIXED_M * p < 1]
    line = make_q_curve(cells[-1].q, "0.9/(M P)", rare, [HIT_LIKELIHOOD / (FIXED_M * p) for p in rare], line=True)
    return replace(panel, curves=(line, *panel.curves))


def _variance_panel(
    title: str, x: str, cells: Sequence[EstimatorMoments], ticks: tuple[float, ...] = ()
) -> FindingPanel:
    curves: list[Curve] = []
    for q, own in _by_q(cells):
        at = [cell.at for cell in own]
        curves.append(make_q_curve(q, "GARL", at, [_noise(cell.garl) for cell in own]))
        curves.append(make_q_curve(q, "PAFT", at, [_noise(cell.paft) for cell in own]))
    return FindingPanel(title, x, "Var ĝ / |E ĝ|²", tuple(curves), x_ticks=ticks)


def _by_q(cells: Sequence[EstimatorMoments]) -> Iterator[tuple[float, list[EstimatorMoments]]]:
    for q in dict.fromkeys(cell.q for cell in cells):
        yield q, [cell for cell in cells if cell.q == q]
