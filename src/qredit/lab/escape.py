"""Escape from a cold start: the time to success grows as p0^{-(1-q)}, and as log(1/p0) at q = 1."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core import tsallis
from qredit.lab.cold_models import ColdModel, SigmoidModel, TabularModel
from qredit.lab.finding import Claim, Curve, Finding, FindingPanel, make_claim, make_q_curve
from qredit.lab.flow import integrate_gradient_flow
from qredit.stats.line_fit import fit_line

THEOREM = "gradient flow on ℓ_q takes P from p0 to δ in T_q ≈ p0^{-(1-q)}/(1-q) for q < 1, in log(1/p0) for q = 1"
SLOPE_TOLERANCE, LINEAR_TOLERANCE, TIME_TOLERANCE, SGD_TOLERANCE, CONSTANT_TOLERANCE = 0.05, 0.01, 0.01, 0.1, 0.05
START = "p0, success probability at the start"
TIME = "time to P = δ (steps × learning rate)"
MIN_STARTS = 3  # starts that a slope is fitted to


@dataclass(frozen=True)
class Descent:
    """Stochastic gradient descent at a constant learning rate, given up after `budget` steps."""

    budget: int
    rate: float = 1.0
    seed: int = 0

    @property
    def horizon(self) -> float:
        """Time at the last step: steps times learning rate."""
        return self.rate * self.budget


@dataclass(frozen=True, eq=False)
class Escape:
    """Time from every p0 to δ, in steps times learning rate; infinite where δ was not reached."""

    q: float
    p0: Float[Tensor, " N"]
    time: Float[Tensor, " N"]

    @property
    def escaped(self) -> tuple[Float[Tensor, " E"], Float[Tensor, " E"]]:
        """p0 and time of the starts that reached δ."""
        kept = self.time.isfinite()
        return self.p0[kept], self.time[kept]


@dataclass(frozen=True, eq=False)
class ModelEscapes:
    """One model: its escapes by gradient flow, by SGD and by the theorem, one of each for every q."""

    model: str
    descent: Descent
    flows: tuple[Escape, ...]
    descents: tuple[Escape, ...]
    laws: tuple[Escape, ...]

    @property
    def at_one(self) -> Escape:
        """The flow at q = 1."""
        return next(flow for flow in self.flows if flow.q == 1.0)


@dataclass(frozen=True)
class PowerLawFit:
    """The least-squares slope of log T on log p0 beside -(1-q), over the starts that escaped."""

    model: str
    q: float
    slope: float
    expected: float
    starts: int
    coldest: float


@dataclass(frozen=True)
class LinearGrowthFit:
    """The line T = intercept + slope·log(1/p0) at q = 1; its slope is 1/‖s‖² where ‖s‖ is constant."""

    model: str
    slope: float
    intercept: float
    r2: float


def measure(
    commitments: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    starts: int = 11,
    delta: float = 0.5,
    sigmoid: Descent = Descent(budget=12_000),
    tabular: Descent = Descent(budget=1100),
) -> Finding:
    """Escape times from p0 between 1e-8 and 1e-3 to `delta`, of two models, by gradient flow and by SGD.

    Gradient flow is integrated step by step from the gradient of ℓ_q itself. SGD takes GARL's estimate from a fresh
    group at every step (`SigmoidModel`, `TabularModel`). A run whose flow needs more time than the budget has is not
    begun; it, and any run that ends before δ, is right-censored: marked in the plot, left out of the fits.

    Args:
        commitments: values of q, 1 among them.
        starts: number of p0, evenly spaced on the log scale.
        delta: success probability at which a model has escaped, in (0, 1).
        sigmoid: SGD on the sigmoid model.
        tabular: SGD on the tabular policy.

    Source: arXiv 2604.25907, escape times under gradient flow.
    """
    p0 = torch.logspace(-8, -3, starts, dtype=torch.float64)
    studies = [
        measure_model(model, descent, commitments, p0, delta)
        for model, descent in ((SigmoidModel(), sigmoid), (TabularModel(), tabular))
    ]
    fits = tuple(fit for one in studies for fit in _fits(one))
    linear = [_linear(one) for one in studies]
    return Finding(
        theorem=THEOREM,
        claims=tuple(_claims(fits, linear, studies[0])),
        tables={"fits": fits},
        panels=(*map(_panel, studies), _panel_at_one(studies)),
        numbers={"q1": asdict(linear[0]), "q1_tabular": asdict(linear[1])},
        notes=tuple(_censored(one) for one in studies),
    )


def measure_model(
    model: ColdModel, descent: Descent, commitments: Sequence[float], p0: Float[Tensor, " N"], delta: float
) -> ModelEscapes:
    """Every escape of one model.

    Args:
        model: the model that escapes.
        descent: learning rate and budget of SGD.
        commitments: each q.
        p0: (N,) success probabilities to start from.
        delta: success probability at which a model has escaped, in (0, 1).
    """
    flows = tuple(measure_flow_escape(model, q, p0, delta) for q in commitments)
    descents = tuple(measure_sgd_escape(model, flow, descent, delta) for flow in flows)
    law = _integral if isinstance(model, SigmoidModel) else _power_law
    return ModelEscapes(model.name, descent, flows, descents, tuple(law(flow, delta) for flow in flows))


def measure_flow_escape(model: ColdModel, q: float, p0: Float[Tensor, " N"], delta: float) -> Escape:
    """Escape by gradient flow, integrated from ∇ℓ_q.

    Args:
        model: the model that escapes.
        q: commitment, 0 … 1.
        p0: (N,) success probabilities to start from.
        delta: success probability at which a model has escaped, in (0, 1).
    """

    def loss(theta: Tensor) -> Tensor:
        return tsallis.loss(model.log_success(theta).exp(), q)

    path = integrate_gradient_flow(loss, model.log_success, model.start(p0), until=delta)
    return Escape(q, p0, path.first_time(delta))


def measure_sgd_escape(model: ColdModel, flow: Escape, descent: Descent, delta: float) -> Escape:
    """Escape by SGD with GARL's estimate, from those starts whose flow fits the budget.

    Args:
        model: the model that escapes.
        flow: the escapes by gradient flow.
        descent: learning rate and budget of SGD.
        delta: success probability at which a model has escaped, in (0, 1).
    """
    begun = flow.time <= descent.horizon
    steps = torch.full_like(flow.time[begun], math.inf)
    theta = model.start(flow.p0)[begun]
    generator = torch.Generator().manual_seed(descent.seed)
    for number in range(1, descent.budget + 1):
        if bool(steps.isfinite().all()):
            break
        theta = theta - descent.rate * model.garl_gradient(theta, flow.q, generator)
        arrived = steps.isinf() & (model.log_success(theta) >= math.log(delta))
        steps = torch.where(arrived, float(number), steps)
    time = torch.full_like(flow.time, math.inf)
    time[begun] = descent.rate * steps
    return Escape(flow.q, flow.p0, time)


def _integral(flow: Escape, delta: float) -> Escape:
    """The sigmoid model's exact escape times."""
    times = [tsallis.escape_time(p0, delta, flow.q) for p0 in flow.p0.tolist()]
    return Escape(flow.q, flow.p0, torch.tensor(times, dtype=torch.float64))


def _power_law(flow: Escape, delta: float) -> Escape:
    """The leading order in p0, through the coldest start; at q = 1 the least-squares line in log(1/p0).

    The constants belong to the policy, the power and the line to the theorem.
    """
    if flow.q == 1.0:
        line = fit_line(flow.p0.log(), flow.time)
        return Escape(flow.q, flow.p0, line.intercept + line.slope * flow.p0.log())
    return Escape(flow.q, flow.p0, flow.time[0] * (flow.p0 / flow.p0[0]) ** (flow.q - 1))


def _fits(study: ModelEscapes) -> Iterator[PowerLawFit]:
    for model, runs in ((study.model, study.flows), (f"{study.model}-sgd", study.descents)):
        for run in runs:
            p0, time = run.escaped
            if run.q < 1 and len(time) >= MIN_STARTS:
                slope = fit_line(p0.log(), time.log()).slope
                yield PowerLawFit(model, run.q, slope, run.q - 1, len(time), float(p0.min()))


def _linear(study: ModelEscapes) -> LinearGrowthFit:
    p0, time = study.at_one.escaped
    line = fit_line(-p0.log(), time)
    return LinearGrowthFit(study.model, line.slope, line.intercept, line.r2)


def _claims(fits: Sequence[PowerLawFit], linear: Sequence[LinearGrowthFit], sigmoid: ModelEscapes) -> Iterator[Claim]:
    for method, chosen in (
        ("by gradient flow", [fit for fit in fits if not fit.model.endswith("-sgd")]),
        ("by SGD", [fit for fit in fits if fit.model.endswith("-sgd")]),
    ):
        slopes, expected = [fit.slope for fit in chosen], [fit.expected for fit in chosen]
        yield make_claim(f"slope of log T on log p0 is -(1-q) {method}", slopes, expected, SLOPE_TOLERANCE)
    yield make_claim("R² of T on log(1/p0) is 1 at q = 1", [line.r2 for line in linear], 1.0, LINEAR_TOLERANCE)
    times, exact = (torch.cat([run.time for run in runs]) for runs in (sigmoid.flows, sigmoid.laws))
    yield make_claim("T of the sigmoid model is its integral", times, exact, TIME_TOLERANCE, relative=True)
    if sum(flow.q < 1 for flow in sigmoid.flows) > 1:
        ratio = "T_q/T_q' · p0^{q'-q} is (1-q')/(1-q) at the coldest start"
        yield make_claim(ratio, *escape_constants(sigmoid.flows), CONSTANT_TOLERANCE, relative=True)
    steps = torch.cat([run.time for run in sigmoid.descents])
    begun = steps.isfinite()
    yield make_claim("and by SGD", steps[begun], exact[begun], SGD_TOLERANCE, relative=True)


def escape_constants(flows: Sequence[Escape]) -> tuple[Tensor, Tensor]:
    """T_q/T_q' of neighbouring q < q' < 1 from the coldest start, without its power of p0; and the theorem's."""
    below_one = sorted((flow for flow in flows if flow.q < 1), key=lambda flow: flow.q)
    pairs = list(itertools.pairwise(below_one))
    coldest = flows[0].p0.argmin()
    found = [a.time[coldest] / b.time[coldest] * a.p0[coldest] ** (b.q - a.q) for a, b in pairs]
    return torch.stack(found), torch.tensor([(1 - b.q) / (1 - a.q) for a, b in pairs], dtype=torch.float64)


def _panel(study: ModelEscapes) -> FindingPanel:
    return FindingPanel(
        title=f"{study.model} model",
        x=START,
        y=TIME,
        curves=tuple(curve for number in range(len(study.flows)) for curve in _curves(study, number)),
    )


def _curves(study: ModelEscapes, number: int) -> Iterator[Curve]:
    flow, descent, law = study.flows[number], study.descents[number], study.laws[number]
    left = descent.time.isinf()
    yield make_q_curve(law.q, "theorem", law.p0, law.time, line=True)
    yield make_q_curve(flow.q, "gradient flow", flow.p0, flow.time)
    yield make_q_curve(descent.q, "SGD", descent.p0, descent.time)
    limit = torch.full_like(descent.p0[left], study.descent.horizon)
    yield make_q_curve(descent.q, "SGD, right-censored", descent.p0[left], limit)


def _panel_at_one(studies: Sequence[ModelEscapes]) -> FindingPanel:
    curves: list[Curve] = []
    for study in studies:
        p0, time = study.at_one.escaped
        line = _linear(study)
        curves.append(make_q_curve(1.0, "straight line", p0, line.intercept - line.slope * p0.log(), line=True))
        curves.append(make_q_curve(1.0, "gradient flow", p0, time))
    title = f"q = 1: {studies[0].model} above, {studies[1].model} below"
    return FindingPanel(title, START, TIME, tuple(curves), log="x")


def _censored(study: ModelEscapes) -> str:
    """Which SGD runs did not reach δ within the budget."""
    counts = [f"q = {run.q:g}: {n}" for run in study.descents if (n := int(run.time.isinf().sum()))]
    runs = f"{', '.join(counts)} of {len(study.descents[0].p0)} starts" if counts else "none"
    return f"SGD on the {study.model} model, {study.descent.budget} steps: right-censored {runs}"
