"""Near the optimum q hardly matters: the time from 1-ε₀ to 1-ε₁ is the same for every q, up to a share of order ε₀."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core import tsallis
from qredit.lab.cold_models import SigmoidModel
from qredit.lab.finding import Finding, FindingPanel, make_claim, make_q_curve
from qredit.lab.flow import integrate_gradient_flow
from qredit.stats.line_fit import fit_line

THEOREM = "gradient flow on ℓ_q takes P from 1-ε₀ to 1-ε₁ in a time that is the same for every q, up to 1 + O(ε₀)"
ORDER_TOLERANCE, TIME_TOLERANCE = 0.1, 0.01
SHRINK = 100.0  # ε₀/ε₁
WRONG = (0.5, 0.3, 0.2)
"""Shares of the wrong answers in what the softmax model leaves to them."""


@runtime_checkable
class Model(Protocol):
    """A model that starts at any success probability, N starts at once, one row of parameters for each."""

    @property
    def name(self) -> str:
        """What tables and plots call it."""

    def start(self, p0: Float[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Parameters with these success probabilities."""

    def log_success(self, theta: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """log P, differentiable."""


@dataclass(frozen=True)
class SoftmaxModel:
    """Four answers, the first of them right: its score depends on how the wrong ones share what is left."""

    name: str = "softmax"

    def start(self, p0: Float[Tensor, " N"]) -> Float[Tensor, "N 4"]:
        wrong = torch.tensor(WRONG, dtype=p0.dtype)
        return torch.cat([p0[:, None], (1 - p0)[:, None] * wrong], 1).log()

    def log_success(self, theta: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
        return theta.log_softmax(1)[:, 0]


@dataclass(frozen=True)
class OptimumTimes:
    """How much longer than at q = 1 a q takes from 1-ε₀ to 1-ε₀/100, at the largest and the smallest ε₀, as shares.

    `order` is the slope of the logarithm of that share on log ε₀.
    """

    model: str
    q: float
    largest: float
    smallest: float
    order: float


def measure(commitments: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0), starts: int = 7) -> Finding:
    """Times from 1-ε₀ to 1-ε₀/100 by gradient flow on ℓ_q, of two models, for ε₀ between 1e-4 and 1e-1.

    Since ṗ = p^{2-q}‖s‖², the flows of two q differ by the factor p^{q'-q} alone, which is 1 + O(ε₀) where P > 1-ε₀.

    Args:
        commitments: values of q, 1 among them.
        starts: number of ε₀, evenly spaced on the log scale.

    Source: arXiv 2604.25907, near-optimality.
    """
    first = torch.logspace(-4, -1, starts, dtype=torch.float64)
    rows, panels, orders = [], [], []
    models: tuple[Model, ...] = (SigmoidModel(), SoftmaxModel())
    for model in models:
        time = {q: measure_last_stretch(model, q, first) for q in commitments}
        longer = {q: t / time[1.0] - 1 for q, t in time.items() if q != 1.0}
        slopes = {q: fit_line(first.log(), share.log()).slope for q, share in longer.items()}
        orders += list(slopes.values())
        rows += [OptimumTimes(model.name, q, float(s[-1]), float(s[0]), slopes[q]) for q, s in longer.items()]
        panels.append(
            FindingPanel(
                title=f"{model.name} model",
                x="ε₀, distance from certainty at the start",
                y="how much longer than at q = 1 (share)",
                curves=tuple(make_q_curve(q, "gradient flow", first, share) for q, share in longer.items()),
            )
        )
    measured = torch.cat([measure_last_stretch(SigmoidModel(), q, first) for q in commitments])
    exact = [tsallis.escape_time(1 - e, 1 - e / SHRINK, q) for q in commitments for e in first.tolist()]
    return Finding(
        theorem=THEOREM,
        claims=(
            make_claim("the extra time is of order ε₀ to the power 1", orders, 1.0, ORDER_TOLERANCE),
            make_claim("T of the sigmoid model is its integral", measured, exact, TIME_TOLERANCE, relative=True),
        ),
        tables={"shares": rows},
        panels=tuple(panels),
    )


def measure_last_stretch(model: Model, q: float, first: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The time that gradient flow on ℓ_q takes from P = 1-ε₀ to P = 1-ε₀/100.

    Args:
        model: a model that can start near certainty.
        q: commitment.
        first: ε₀, float64.
    """

    def loss(theta: Tensor) -> Tensor:
        return tsallis.loss(model.log_success(theta).exp(), q)

    def log_gain(theta: Tensor) -> Tensor:
        # by how much the distance from certainty has shrunk
        return first.log() - torch.log(-torch.expm1(model.log_success(theta)))

    return integrate_gradient_flow(loss, log_gain, model.start(1 - first), until=SHRINK).first_time(SHRINK)
