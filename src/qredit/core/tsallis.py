"""The mathematics of the J_Q loss continuum, as pure float64 functions (arXiv 2604.25907).

P is an example's success probability, P = Σ_z p(z|x) p(y*|x,z). The family is ℓ_q = -log_q P with the q-logarithm
log_q(u) = (u^{1-q} - 1)/(1 - q): q = 0 is RLVR (1 - P), q = 1 maximum marginal likelihood (-log P).

Numbers in give a float, tensors in give a tensor. Times are in units of gradient flow at learning rate 1.
"""

import math
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.utils.errors import QreditError

Number = TypeVar("Number", float, Tensor)


def log_q(u: Number, q: float) -> Number:
    """log_q(u) = (u^{1-q} - 1)/(1 - q) for 0 ≤ u ≤ 1; log u at q = 1. Accurate for q near 1 and u near 1."""
    _check_q(q)
    log_u = _log(u)
    if q == 1.0:
        return _as(u, log_u)
    return _as(u, torch.expm1((1 - q) * log_u) / (1 - q))


def loss(p: Number, q: float) -> Number:
    """ℓ_q = -log_q P, the loss of an example with success probability `p`; ∇ℓ_q = -P^{-q} ∇P."""
    return -log_q(p, q)


def amplification(p: Number, q: float) -> Number:
    """P^{-q}, by which ∇ℓ_q exceeds the RL gradient ∇ℓ_0."""
    _check_q(q)
    log_p = _log(p)
    return _as(p, torch.ones_like(log_p) if q == 0.0 else torch.exp(-q * log_p))


def escort(alpha: Float[Tensor, " K"], q: float) -> Float[Tensor, " K"]:
    """The minimiser of J_Q over categorical distributions with data frequencies α: θ_j ∝ α_j^{1/q}.

    q = 1 gives α itself; q → 0 all mass on the most frequent answer (ties shared), which is what q = 0 returns.
    """
    _check_q(q)
    alpha = torch.as_tensor(alpha, dtype=torch.float64)
    if q == 0.0:
        top = (alpha == alpha.max()).double()
        return top / top.sum()
    return torch.softmax(alpha.log() / q, 0)


def escape_time(p0: float, delta: float, q: float, panels: int = 4096) -> float:
    """Time in which gradient flow on ℓ_q takes the sigmoid model P = σ(θ) from success probability p0 to delta.

        T_q(p0, δ) = ∫_{p0}^{δ} du / (u^{2-q} (1-u)²)

    by Simpson's rule on the logit scale, where the integrand is smooth. For p0 → 0 it is `escape_time_asymptote`.

    Args:
        p0: success probability at the start, in (0, 1).
        delta: success probability at which a model has escaped, in (0, 1).
        q: commitment, 0 … 1.
        panels: of Simpson's rule.
    """
    _check_q(q)
    _check_open("p0", p0)
    _check_open("delta", delta)
    start, end = _logit(p0), _logit(delta)
    theta = torch.linspace(start, end, 2 * panels + 1, dtype=torch.float64)
    # du = u (1-u) dθ, so the integrand is u^{q-1} (1-u)^{-1}
    integrand = torch.exp((q - 1) * torch.nn.functional.logsigmoid(theta) - torch.nn.functional.logsigmoid(-theta))
    weight = torch.ones_like(theta)
    weight[1:-1:2], weight[2:-1:2] = 4.0, 2.0
    return float((weight * integrand).sum()) * (end - start) / (6 * panels)


def escape_time_asymptote(p0: float, q: float) -> float:
    """Leading order of the escape time for p0 → 0: p0^{-(1-q)}/(1-q) for q < 1, log(1/p0) at q = 1."""
    _check_q(q)
    _check_open("p0", p0)
    return -math.log(p0) if q == 1.0 else p0 ** (q - 1) / (1 - q)


def noise_equilibrium(eps: float, q: float) -> float:
    """Probability of the wrong label at the minimiser of J_Q, when a share `eps` of the labels is flipped (two labels).

    The escort of (1-eps, eps): eps^{1/q} / (eps^{1/q} + (1-eps)^{1/q}), about (eps/(1-eps))^{1/q}; 0 at q = 0.
    """
    if not 0 < eps < 0.5:
        raise QreditError(f"eps must be between 0 and 0.5, got {eps}")
    return float(escort(torch.tensor([1 - eps, eps], dtype=torch.float64), q)[1])


def noise_time(eta: float, eps: float, q: float) -> float:
    """Time in which label noise `eps` brings the wrong label to probability eta, from 0, to leading order.

        η^{q+1} / ((q+1) ε),   for η far below `noise_equilibrium`

    in a parametrisation linear in the contamination (unit gradient norm). Infinite at q = 0, whose minimiser holds no
    contamination at all.

    Args:
        eta: probability of the wrong label that is reached, in (0, 1).
        eps: share of wrong labels, in (0, 1/2).
        q: commitment, 0 … 1.
    """
    _check_q(q)
    _check_open("eta", eta)
    return math.inf if q == 0.0 else eta ** (q + 1) / ((q + 1) * eps)


def estimator_bias(
    prior: Float[Tensor, " Z"], likelihood: Float[Tensor, " Z"], score: Float[Tensor, "Z D"], q: float
) -> Float[Tensor, " D"]:
    """Leading coefficient of the bias of GARL and PAFT (unnormalised): E[ĝ] = ∇ℓ_q + bias/M + O(M^{-2}).

        bias = (q / P^{q+1}) [ ((q+1)/2) ∇ℓ_1 Var(w) - Cov(g, w) ],   g = -w ∇log p(z, y*|x)

    Args:
        prior: p(z|x) of every rationale z.
        likelihood: w_z = p(y*|x, z).
        score: ∇_θ log p(z, y*|x), one row per rationale.
        q: commitment, 0 … 1.

    Zero at q = 0. Variances and covariances are over z ~ prior. The expansion needs M·P ≫ 1 when success is sparse.
    """
    _check_q(q)
    prior, w, score = prior.double(), likelihood.double(), score.double()
    success = prior @ w
    g = -w[:, None] * score
    mean_g = prior @ g
    variance = prior @ (w - success) ** 2
    covariance = prior @ ((g - mean_g) * (w - success)[:, None])
    gradient_of_log = mean_g / success
    return q / success ** (q + 1) * ((q + 1) / 2 * gradient_of_log * variance - covariance)


def _log(u: float | Tensor) -> Tensor:
    return torch.log(torch.as_tensor(u, dtype=torch.float64))


def _as(like: Number, value: Tensor) -> Number:
    return value if isinstance(like, Tensor) else value.item()  # type: ignore[return-value]


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _check_q(q: float) -> None:
    if not 0.0 <= q <= 1.0:
        raise QreditError(f"q must be a number between 0 and 1, got {q!r}")


def _check_open(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise QreditError(f"{name} must lie strictly between 0 and 1, got {value!r}")
