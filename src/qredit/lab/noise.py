"""Label noise: how much contamination the minimiser holds, and how fast it comes in."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core import tsallis
from qredit.lab.finding import Claim, Curve, Finding, Panel, by_q, claim, curve
from qredit.lab.fit import line_through
from qredit.lab.flow import Path, gradient_flow
from qredit.lab.minimiser import minimiser

THEOREM = "with a share ε of two labels flipped, contamination settles at the escort and reaches η in η^{q+1}/((q+1)ε)"
EQUILIBRIUM_TOLERANCE, SLOPE_TOLERANCE, TIME_TOLERANCE = 1e-3, 0.05, 0.05
EPS = torch.logspace(-2, -0.4, 9, dtype=torch.float64)
ETA = torch.logspace(-10, -6, 9, dtype=torch.float64)
CLEAN = 1e-14  # where linear flows begin: as good as no contamination
SOFTMAX_ETA = torch.logspace(-3.5, -2, 7, dtype=torch.float64)

Contamination = Callable[[Tensor], Tensor]
"""From parameters (N, 1) to the probability of the wrong label (N,)."""


@dataclass(frozen=True)
class Settled:
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
    linear = {q: flow(q, eps, _linear, torch.tensor([CLEAN]), float(ETA[-1])) for q in commitments}
    softmax = flow(1.0, eps, _softmax, torch.tensor(starts).double().logit(), float(SOFTMAX_ETA[-1]))
    arrivals = tuple(_arrival(q, eps, times_to(path, ETA)[:, 0]) for q, path in linear.items())
    late = times_to(softmax, SOFTMAX_ETA)
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


def flow(q: float, eps: float, contamination: Contamination, start: Float[Tensor, " N"], until: float) -> Path:
    """Gradient flow on (1-ε) ℓ_q(1-p̃) + ε ℓ_q(p̃), watched by its contamination p̃."""

    def loss(theta: Tensor) -> Tensor:
        wrong = contamination(theta)
        return (1 - eps) * tsallis.loss(1 - wrong, q) + eps * tsallis.loss(wrong, q)

    return gradient_flow(loss, lambda theta: contamination(theta).log(), start.double()[:, None], until)


def times_to(path: Path, etas: Float[Tensor, " E"]) -> Float[Tensor, "E N"]:
    """When each flow reaches each contamination."""
    return torch.stack([path.first_time(float(eta)) for eta in etas])


def _linear(theta: Tensor) -> Tensor:
    return theta[:, 0]


def _softmax(theta: Tensor) -> Tensor:
    return theta[:, 0].sigmoid()


def _settled(q: float, eps: float) -> Settled:
    labels = torch.tensor([1 - eps, eps], dtype=torch.float64)
    return Settled(q, eps, float(minimiser(labels, q)[1]), tsallis.noise_equilibrium(eps, q))


def _arrival(q: float, eps: float, times: Float[Tensor, " E"]) -> Arrival:
    law = tsallis.noise_time(float(ETA[0]), eps, q)
    return Arrival(q, line_through(ETA.log(), times.log()).slope, q + 1, float(times[0]) / law)


def _claims(
    settled: Sequence[Settled],
    arrivals: Sequence[Arrival],
    late: Float[Tensor, "E N"],
    eps: float,
    starts: Sequence[float],
) -> Iterator[Claim]:
    contamination, escort = [s.contamination for s in settled], [s.escort for s in settled]
    yield claim("contamination at the minimum is the escort's", contamination, escort, EQUILIBRIUM_TOLERANCE, True)
    slopes, expected = [a.slope for a in arrivals], [a.expected for a in arrivals]
    yield claim("slope of log time on log η is q+1, linear parametrisation", slopes, expected, SLOPE_TOLERANCE)
    yield claim("time over η^{q+1}/((q+1)ε) is 1 at the smallest η", [a.ratio for a in arrivals], 1.0, TIME_TOLERANCE)
    law = _logit_law(eps, starts).flatten()
    yield claim("time in logits at q = 1 is log(η/p̃0)/ε", late.flatten(), law, TIME_TOLERANCE, relative=True)
    reached = [float(arrived) for arrived in _reached_at_zero(eps, starts)]
    yield claim("number of flows that gain contamination at q = 0 is 0", reached, 0.0, 0.0)


def _logit_law(eps: float, starts: Sequence[float]) -> Float[Tensor, "E N"]:
    return (SOFTMAX_ETA[:, None] / torch.tensor(starts, dtype=torch.float64)).log() / eps


def _reached_at_zero(eps: float, starts: Sequence[float]) -> Iterator[int]:
    """How many flows at q = 0 reach twice the contamination that they start with, in either parametrisation."""
    for start in starts:
        begun = torch.tensor([start], dtype=torch.float64)
        yield int(flow(0.0, eps, _linear, begun, 2 * start).first_time(2 * start).isfinite())
        yield int(flow(0.0, eps, _softmax, begun.logit(), 2 * start).first_time(2 * start).isfinite())


def _equilibrium_panel(commitments: Sequence[float], settled: Sequence[Settled]) -> Panel:
    curves: list[Curve] = []
    for q in commitments:
        found = [one.contamination for one in settled if one.q == q]
        escorts = [tsallis.noise_equilibrium(float(eps), q) for eps in EPS]
        curves += [by_q(q, "theorem", EPS, escorts, line=True), by_q(q, "measured", EPS, found)]
    return Panel("equilibrium", "ε, share of flipped labels", "contamination at the minimum", tuple(curves))


def _linear_panel(flows: dict[float, Path], eps: float) -> Panel:
    curves: list[Curve] = []
    for q, path in flows.items():
        law = [tsallis.noise_time(float(eta), eps, q) for eta in ETA]
        curves += [by_q(q, "theorem", ETA, law, line=True), by_q(q, "measured", ETA, times_to(path, ETA)[:, 0])]
    title = f"linear parametrisation, ε = {eps:g}"
    return Panel(title, "η, contamination reached", "time to η (steps × learning rate)", tuple(curves))


def _softmax_panel(late: Float[Tensor, "E N"], eps: float, starts: Sequence[float]) -> Panel:
    curves: list[Curve] = []
    for number, (start, law) in enumerate(zip(starts, _logit_law(eps, starts).T, strict=True)):
        hue = number / len(starts)
        curves.append(curve(_start(start), hue, "theorem", SOFTMAX_ETA, law, line=True))
        curves.append(curve(_start(start), hue, "measured", SOFTMAX_ETA, late[:, number]))
    title = f"softmax, q = 1, ε = {eps:g}"
    return Panel(title, "η, contamination reached", "time to η (steps × learning rate)", tuple(curves), log="x")


def _start(contamination: float) -> str:
    return f"start 1e{math.log10(contamination):.0f}"
