"""The mathematics of J_Q against worked values, limits, minimisation and quadrature-free references."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit import QreditError
from qredit.core import tsallis

probabilities = st.floats(1e-12, 1.0)
commitments = st.floats(0.0, 1.0)


def test_log_q_has_its_two_poles_and_a_worked_middle():
    assert tsallis.log_q(0.25, 0.0) == pytest.approx(-0.75)
    assert tsallis.log_q(0.25, 1.0) == pytest.approx(math.log(0.25))
    assert tsallis.log_q(0.25, 0.5) == pytest.approx(-1.0)  # (0.5 - 1) / 0.5
    assert tsallis.loss(0.25, 0.5) == pytest.approx(1.0)


@given(probabilities)
def test_log_q_is_continuous_at_q_one(u):
    assert tsallis.log_q(u, 1 - 1e-9) == pytest.approx(math.log(u), rel=1e-6, abs=1e-12)


@given(st.floats(1e-3, 1 - 1e-3), commitments)
def test_slope_of_the_loss_is_minus_the_amplification(p, q):
    step = 1e-6 * p
    slope = (tsallis.loss(p + step, q) - tsallis.loss(p - step, q)) / (2 * step)
    assert slope == pytest.approx(-tsallis.amplification(p, q), rel=1e-5)


def test_tensor_in_tensor_out():
    p = torch.tensor([0.25, 1.0], dtype=torch.float64)
    assert torch.allclose(tsallis.loss(p, 0.5), torch.tensor([1.0, 0.0], dtype=torch.float64))


@given(st.floats(0.05, 1.0), st.integers(0, 1000))
def test_escort_minimises_the_expected_loss(q, seed):
    alpha = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def expected_loss(theta):
        return (alpha * tsallis.loss(theta, q)).sum()

    best = tsallis.escort(alpha, q)
    logits = best.log().requires_grad_()
    slope = torch.autograd.grad(expected_loss(logits.softmax(0)), logits)[0]
    assert float(slope.abs().max()) < 1e-12
    noise = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert float(expected_loss((best.log() + 0.1 * noise).softmax(0))) >= float(expected_loss(best)) - 1e-15


def test_escort_at_its_poles():
    alpha = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert torch.allclose(tsallis.escort(alpha, 1.0), alpha)
    assert torch.equal(tsallis.escort(alpha, 0.0), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    tie = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    assert torch.equal(tsallis.escort(tie, 0.0), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))


def test_escape_time_has_closed_forms_at_the_poles():
    def at_one(u):  # ∫ du / (u (1-u)²)
        return math.log(u) - math.log1p(-u) + 1 / (1 - u)

    def at_zero(u):  # ∫ du / (u² (1-u)²)
        return 2 * (math.log(u) - math.log1p(-u)) - 1 / u + 1 / (1 - u)

    for p0 in (1e-1, 1e-4, 1e-8):
        assert tsallis.escape_time(p0, 0.5, 1.0) == pytest.approx(at_one(0.5) - at_one(p0), rel=1e-9)
        assert tsallis.escape_time(p0, 0.5, 0.0) == pytest.approx(at_zero(0.5) - at_zero(p0), rel=1e-9)


@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 0.75])
def test_escape_slope_is_minus_one_minus_q(q):
    p0 = torch.logspace(-8, -3, 11, dtype=torch.float64)
    times = torch.tensor([tsallis.escape_time(float(p), 0.5, q) for p in p0], dtype=torch.float64)
    x, y = p0.log(), times.log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert float(slope) == pytest.approx(-(1 - q), abs=0.01)


@pytest.mark.parametrize(
    ("q", "p0", "within"), [(0.0, 1e-8, 1e-5), (0.5, 1e-10, 1e-3), (0.75, 1e-14, 0.02), (1.0, 1e-14, 0.1)]
)
def test_escape_time_approaches_its_asymptote(q, p0, within):
    assert tsallis.escape_time(p0, 0.5, q) == pytest.approx(tsallis.escape_time_asymptote(p0, q), rel=within)


def test_noise_equilibrium_is_the_escort_of_the_flipped_labels():
    assert tsallis.noise_equilibrium(0.1, 1.0) == pytest.approx(0.1)
    assert tsallis.noise_equilibrium(0.1, 0.5) == pytest.approx(0.01 / (0.01 + 0.81))
    assert tsallis.noise_equilibrium(0.1, 0.0) == 0.0


@pytest.mark.parametrize("q", [0.25, 0.5, 1.0])
def test_noise_time_is_the_time_of_the_linear_flow(q):
    eps, share = 0.1, 1e-8
    eta = share * tsallis.noise_equilibrium(eps, q)
    # contamination u moves by eps u^{-q} - (1-eps)(1-u)^{-q}; substitute v = u^{q+1} to keep the integrand bounded
    v = torch.linspace(0, eta ** (q + 1), 200_001, dtype=torch.float64)[1:]
    u = v ** (1 / (q + 1))
    speed = (q + 1) * u**q * (eps * u**-q - (1 - eps) * (1 - u) ** -q)
    time = float((1 / speed).mean()) * eta ** (q + 1)
    assert tsallis.noise_time(eta, eps, q) == pytest.approx(time, rel=max(2 * share**q, 1e-4))
    assert tsallis.noise_time(eta, eps, 0.0) == math.inf


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_q_outside_its_range_is_refused_by_name(bad):
    with pytest.raises(QreditError, match=r"q must be a number between 0 and 1"):
        tsallis.log_q(0.5, bad)


@pytest.mark.parametrize(("p0", "delta"), [(0.0, 0.5), (1e-3, 1.0)])
def test_escape_time_refuses_a_probability_at_the_edge(p0, delta):
    with pytest.raises(QreditError, match="strictly between 0 and 1"):
        tsallis.escape_time(p0, delta, 0.5)


def test_amplification_at_q_0_is_one_even_at_probability_zero():
    assert tsallis.amplification(0.0, 0.0) == 1.0
