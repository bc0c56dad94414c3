"""Coverage: what spreading success unevenly over examples costs, nothing at q = 0 and more as q grows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core import tsallis
from qredit.lab.finding import Claim, Curve, Finding, FindingPanel, make_claim, make_q_curve
from qredit.stats.line_fit import fit_line

THEOREM = "J_Q ≥ -log_q(P̄), and to second order the excess is (q/2) P̄^{-q-1} Var(P)"
RATIO_TOLERANCE, SLOPE_TOLERANCE, BOUND_TOLERANCE = 0.02, 0.05, 1e-12
SPREADS = torch.logspace(-2, -0.01, 13, dtype=torch.float64)
SMALL = 0.1  # spreads up to here are fitted
POPULATIONS, EXAMPLES = 200, 300  # random ones that the bound is tried on


@dataclass(frozen=True)
class Excess:
    """J_Q + log_q(P̄) over (q/2) P̄^{-q-1} Var(P) at the smallest spread, and the slope of its log on that of Var(P)."""

    q: float
    shape: str
    ratio: float
    slope: float


def measure(commitments: Sequence[float] = (0.25, 0.5, 0.75, 1.0), mean: float = 0.3) -> Finding:
    """The excess of J_Q against the spread of P over examples with one mean, for two shapes of the spread.

    P_i = P̄ (1 + spread·u_i), with u evenly spaced from -1 to 1, or 2 for one example in three and -1 for the others.
    At spread 1 some example would have P = 0. The bound is also tried on populations of random P.

    Args:
        commitments: values of q above 0; q = 0 is measured beside them.
        mean: P̄.

    Source: arXiv 2604.25907, dispersion of success over examples.
    """
    shapes = _shapes()
    rows = tuple(_excess(q, name, mean, shape) for name, shape in shapes.items() for q in commitments)
    return Finding(
        theorem=THEOREM,
        claims=tuple(_claims(rows, (0.0, *commitments), mean, shapes)),
        tables={"excess": rows},
        panels=tuple(_panel(name, shape, mean, commitments) for name, shape in shapes.items()),
    )


def excess(p: Float[Tensor, " N"], q: float) -> float:
    """J_Q - (-log_q(P̄)) of examples with these success probabilities."""
    return float(tsallis.loss(p, q).mean() - tsallis.loss(p.mean(), q))


def second_order(p: Float[Tensor, " N"], q: float) -> float:
    """(q/2) P̄^{-q-1} Var(P)."""
    return q / 2 * math.pow(float(p.mean()), -q - 1) * float(p.var(correction=0))


def _shapes() -> Mapping[str, Float[Tensor, " N"]]:
    """Deviations u_i with mean 0 and minimum -1."""
    return {
        "evenly spread": torch.linspace(-1, 1, 301, dtype=torch.float64),
        "high on one example in three": torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64).repeat(100),
    }


def _excess(q: float, name: str, mean: float, shape: Float[Tensor, " N"]) -> Excess:
    small = [mean * (1 + spread * shape) for spread in SPREADS if float(spread) <= SMALL]
    found = torch.tensor([excess(p, q) for p in small], dtype=torch.float64)
    variance = torch.tensor([float(p.var(correction=0)) for p in small], dtype=torch.float64)
    slope = fit_line(variance.log(), found.log()).slope
    return Excess(q, name, float(found[0]) / second_order(small[0], q), slope)


def _random_populations() -> Iterator[Float[Tensor, " N"]]:
    """P drawn as powers of uniform numbers, from all near 1 to nearly all near 0."""
    generator = torch.Generator().manual_seed(0)
    for power in torch.logspace(-2, 1, POPULATIONS, dtype=torch.float64):
        yield torch.rand(EXAMPLES, dtype=torch.float64, generator=generator).clamp(min=1e-12) ** power


def _claims(
    rows: Sequence[Excess], commitments: Sequence[float], mean: float, shapes: Mapping[str, Float[Tensor, " N"]]
) -> Iterator[Claim]:
    yield make_claim(
        "excess over the second order is 1 at the smallest spread", [r.ratio for r in rows], 1.0, RATIO_TOLERANCE
    )
    yield make_claim("slope of log excess on log Var(P) is 1", [r.slope for r in rows], 1.0, SLOPE_TOLERANCE)
    below = [min(0.0, excess(p, q)) for p in _random_populations() for q in commitments]
    yield make_claim(f"shortfall below the bound in {len(below)} random trials is 0", below, 0.0, BOUND_TOLERANCE)
    still = [excess(mean * (1 + spread * shape), 0.0) for shape in shapes.values() for spread in SPREADS]
    yield make_claim("excess at q = 0 is 0 for every spread", still, 0.0, BOUND_TOLERANCE)


def _panel(name: str, shape: Float[Tensor, " N"], mean: float, commitments: Sequence[float]) -> FindingPanel:
    curves: list[Curve] = []
    populations = [mean * (1 + spread * shape) for spread in SPREADS]
    deviation = [float(p.std(correction=0)) for p in populations]
    for q in commitments:
        curves.append(make_q_curve(q, "second order", deviation, [second_order(p, q) for p in populations], line=True))
        curves.append(make_q_curve(q, "measured", deviation, [excess(p, q) for p in populations]))
    title = f"P {name}, mean {mean:g}"
    return FindingPanel(title, "standard deviation of P over examples", "J_Q + log_q(mean P)", tuple(curves))
