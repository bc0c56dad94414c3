"""The minimiser of J_Q over categorical distributions is the escort: the mode for q → 0, the data at q = 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qredit.core import tsallis
from qredit.lab.finding import Curve, Finding, FindingPanel, make_claim, make_curve
from qredit.lab.minimize import minimize_expected_loss

THEOREM = "the minimiser of J_Q over categorical distributions with data frequencies α is θ_j ∝ α_j^{1/q}"
TOLERANCE = 1e-6
FREQUENCIES = ((0.5, 0.3, 0.2), (0.4, 0.35, 0.25), (0.6, 0.2, 0.1, 0.06, 0.04))


@dataclass(frozen=True)
class Minimum:
    """The most frequent answer's share at the minimum and in the escort.

    `error` is the largest distance of any answer from its share in the escort, `from_data` from its share in α.
    """

    alpha: str
    q: float
    top: float
    escort_top: float
    error: float
    from_data: float


def measure(
    frequencies: Sequence[Sequence[float]] = FREQUENCIES,
    commitments: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0),
) -> Finding:
    """Minimise J_Q by L-BFGS for several data frequencies and compare with the escort.

    Source: arXiv 2604.25907, the population minimiser of J_Q.
    """
    minima = tuple(_minimum(alpha, q) for alpha in frequencies for q in commitments)
    at_one = [minimum.from_data for minimum in minima if minimum.q == 1.0]
    return Finding(
        theorem=THEOREM,
        claims=(
            make_claim(
                "distance of the minimum from the escort is 0", [minimum.error for minimum in minima], 0.0, TOLERANCE
            ),
            make_claim("distance from α is 0 at q = 1", at_one, 0.0, TOLERANCE),
        ),
        tables={"minima": minima},
        panels=tuple(_panel(alpha, commitments) for alpha in frequencies),
    )


def _minimum(alpha: Sequence[float], q: float) -> Minimum:
    data = torch.tensor(alpha, dtype=torch.float64)
    found, theorem = minimize_expected_loss(data, q), tsallis.escort(data, q)
    return Minimum(
        alpha=_text(alpha),
        q=q,
        top=float(found.max()),
        escort_top=float(theorem.max()),
        error=float((found - theorem).abs().max()),
        from_data=float((found - data).abs().max()),
    )


def _panel(alpha: Sequence[float], commitments: Sequence[float]) -> FindingPanel:
    data, fine = torch.tensor(alpha, dtype=torch.float64), torch.linspace(0, 1, 81, dtype=torch.float64)
    lines = torch.stack([tsallis.escort(data, float(q)) for q in fine])
    found = torch.stack([minimize_expected_loss(data, q) for q in commitments])
    curves: list[Curve] = []
    for answer in range(len(alpha)):
        label, hue = f"answer {answer + 1}", answer / 4
        curves.append(make_curve(label, hue, "escort", fine, lines[:, answer], line=True))
        curves.append(make_curve(label, hue, "minimiser", commitments, found[:, answer]))
    return FindingPanel(f"α = {_text(alpha)}", "q", "probability", tuple(curves), log="")


def _text(alpha: Sequence[float]) -> str:
    return ", ".join(f"{share:g}" for share in alpha)
