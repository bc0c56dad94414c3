"""Label noise: how much contamination the minimiser holds, and how fast it comes in."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core import tsallis
from qredit.lab.finding import Claim, Curve, Finding, FindingPanel, make_claim, make_curve, make_q_curve
from qredit.lab.flow import FlowPath, integrate_gradient_flow
from qredit.lab.minimize import minimize_expected_loss
from qredit.stats.line_fit import fit_line

THEOREM = "with a share ε of two labels flipped, contamination settles at the escort and reaches η in η^{q+1}/((q+1)ε)"
EQUILIBRIUM_TOLERANCE, SLOPE_TOLERANCE, TIME_TOLERANCE = 1e-3, 0.05, 0.05
EPS = torch.logspace(-2, -0.4, 9, dtype=torch.float64)
ETA = torch.logspace(-10, -6, 9, dtype=torch.float64)
CLEAN = 1e-14  # where linear flows begin: as good as no contamination
SOFTMAX_ETA = torch.logspace(-3.5, -2, 7, dtype=torch.float64)

Contamination = Callable[[Tensor], Tensor]
"""From parameters (N, 1) to the probability of the wrong label (N,)."""


@dataclass(frozen=True)
class Equilibrium:
    """Contamination of the minimiser at flip rate eps, beside the escort's."""

    q: float
    eps: float
    contamination: float
    escort: float


@dataclass(frozen=True)
class Arrival:
    """Slope of log time on log η in the linear parametrisation, and time over η^{q+1}/((q+1)ε) at the smallest η."""

    q: float
    slope: float
    expected: float
    ratio: float


def measure(
    commitments: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    eps: float = 0.2,
    starts: Sequence[float] = (1e-8, 1e-6, 1e-4),
) -> Finding:
    """Where contamination settles and when it arrives, at flip rate `eps`; q = 0 is measured beside the others.

    The equilibrium comes from minimising J_Q numerically, the times from integrating gradient flow: once with the
    contamination as the parameter, once with its logit, where the start matters instead of η.

    Args:
        commitments: values of q above 0.
        eps: share of flipped labels, below 1/2.
        starts: contaminations that the flows in logits begin at.

    Source: arXiv 2604.25907, equilibrium contamination and memorisation time. The paper's time is for a parametrisation
    linear in the contamination; the line for logits at q = 1, log(η/p̃0)/ε, is ours.
    """
    settled = tuple(_settled(q, float(flip)) for q in commitments for flip in EPS)
    linear = {q: integrate_noisy_flow(q, eps, _linear, torch.tensor([CLEAN]), float(ETA[-1])) for q in commitments}
    softmax = integrate_noisy_flow(1.0, eps, _softmax, torch.tensor(starts).double().logit(), float(SOFTMAX_ETA[-1]))
    arrivals = tuple(_arrival(q, eps, find_arrival_times(path, ETA)[:, 0]) for q, path in linear.items())
    late = find_arrival_times(softmax, SOFTMAX_ETA)
    return Finding(
        theorem=THEOREM,
        claims=tuple(_claims(settled, arrivals, late, eps, starts)),
        tables={"arrival": arrivals, "equilibrium": tuple(_settled(q, eps) for q in (0.0, *commitments))},
        panels=(
            _equilibrium_panel(commitments, settled),
            _linear_panel(linear, eps),
            _softmax_panel(late, eps, starts),
        ),
        notes=("q = 0 is drawn nowhere: its minimiser holds no contamination and its flow only loses what there is",),
    )


def integrate_noisy_flow(
    q: float, eps: float, contamination: Contamination, start: Float[Tensor, " N"], until: float
) -> FlowPath:
    """Gradient flow on (1-ε) ℓ_q(1-p̃) + ε ℓ_q(p̃), watched by its contamination p̃.

    Args:
        q: commitment, 0 … 1.
        eps: share of wrong labels, in (0, 1/2).
        contamination: parameter → probability of the wrong label.
        start: (N,) parameters to begin at.
        until: contamination at which a flow ends.
    """

    def loss(theta: Tensor) -> Tensor:
        wrong = contamination(theta)
        return (1 - eps) * tsallis.loss(1 - wrong, q) + eps * tsallis.loss(wrong, q)

    return integrate_gradient_flow(loss, lambda theta: contamination(theta).log(), start.double()[:, None], until)


def find_arrival_times(path: FlowPath, etas: Float[Tensor, " E"]) -> Float[Tensor, "E N"]:
    """When each flow reaches each contamination."""
    return torch.stack([path.first_time(float(eta)) for eta in etas])


def _linear(theta: Tensor) -> Tensor:
    return theta[:, 0]


def _softmax(theta: Tensor) -> Tensor:
    return theta[:, 0].sigmoid()


def _settled(q: float, eps: float) -> Equilibrium:
    labels = torch.tensor([1 - eps, eps], dtype=torch.float64)
    return Equilibrium(q, eps, float(minimize_expected_loss(labels, q)[1]), tsallis.noise_equilibrium(eps, q))


def _arrival(q: float, eps: float, times: Float[Tensor, " E"]) -> Arrival:
    law = tsallis.noise_time(float(ETA[0]), eps, q)
    return Arrival(q, fit_line(ETA.log(), times.log()).slope, q + 1, float(times[0]) / law)


def _claims(
    settled: Sequence[Equilibrium],
    arrivals: Sequence[Arrival],
    late: Float[Tensor, "E N"],
    eps: float,
    starts: Sequence[float],
) -> Iterator[Claim]:
    contamination, escort = [s.contamination for s in settled], [s.escort for s in settled]
    yield make_claim("contamination at the minimum is the escort's", contamination, escort, EQUILIBRIUM_TOLERANCE, True)
    slopes, expected = [a.slope for a in arrivals], [a.expected for a in arrivals]
    yield make_claim("slope of log time on log η is q+1, linear parametrisation", slopes, expected, SLOPE_TOLERANCE)
    yield make_claim(
        "time over η^{q+1}/((q+1)ε) is 1 at the smallest η", [a.ratio for a in arrivals], 1.0, TIME_TOLERANCE
    )
    law = _logit_law(eps, starts).flatten()
    yield make_claim("time in logits at q = 1 is log(η/p̃0)/ε", late.flatten(), law, TIME_TOLERANCE, relative=True)
    reached = [float(arrived) for arrived in _reached_at_zero(eps, starts)]
    yield make_claim("number of flows that gain contamination at q = 0 is 0", reached, 0.0, 0.0)


def _logit_law(eps: float, starts: Sequence[float]) -> Float[Tensor, "E N"]:
    return (SOFTMAX_ETA[:, None] / torch.tensor(starts, dtype=torch.float64)).log() / eps


def _reached_at_zero(eps: float, starts: Sequence[float]) -> Iterator[int]:
    """How many flows at q = 0 reach twice the contamination that they start with, in either parametrisation."""
    for start in starts:
        begun = torch.tensor([start], dtype=torch.float64)
        yield int(integrate_noisy_flow(0.0, eps, _linear, begun, 2 * start).first_time(2 * start).isfinite())
        yield int(integrate_noisy_flow(0.0, eps, _softmax, begun.logit(), 2 * start).first_time(2 * start).isfinite())


def _equilibrium_panel(commitments: Sequence[float], settled: Sequence[Equilibrium]) -> FindingPanel:
    curves: list[Curve] = []
    for q in commitments:
        found = [one.contamination for one in settled if one.q == q]
        escorts = [tsallis.noise_equilibrium(float(eps), q) for eps in EPS]
        curves += [make_q_curve(q, "theorem", EPS, escorts, line=True), make_q_curve(q, "measured", EPS, found)]
    return FindingPanel("equilibrium", "ε, share of flipped labels", "contamination at the minimum", tuple(curves))


def _linear_panel(flows: dict[float, FlowPath], eps: float) -> FindingPanel:
    curves: list[Curve] = []
    for q, path in flows.items():
        law = [tsallis.noise_time(float(eta), eps, q) for eta in ETA]
        curves += [
            make_q_curve(q, "theorem", ETA, law, line=True),
            make_q_curve(q, "measured", ETA, find_arrival_times(path, ETA)[:, 0]),
        ]
    title = f"linear parametrisation, ε = {eps:g}"
    return FindingPanel(title, "η, contamination reached", "time to η (steps × learning rate)", tuple(curves))


def _softmax_panel(late: Float[Tensor, "E N"], eps: float, starts: Sequence[float]) -> FindingPanel:
    curves: list[Curve] = []
    for number, (start, law) in enumerate(zip(starts, _logit_law(eps, starts).T, strict=True)):
        hue = number / len(starts)
        curves.append(make_curve(_start(start), hue, "theorem", SOFTMAX_ETA, law, line=True))
        curves.append(make_curve(_start(start), hue, "measured", SOFTMAX_ETA, late[:, number]))
    title = f"softmax, q = 1, ε = {eps:g}"
    return FindingPanel(title, "η, contamination reached", "time to η (steps × learning rate)", tuple(curves), log="x")


def _start(contamination: float) -> str:
    return f"start 1e{math.log10(contamination):.0f}"
