"""Minimisers over categorical distributions, found by descent."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core import tsallis


def expected_loss(alpha: Float[Tensor, " K"], theta: Float[Tensor, " K"], q: float) -> Float[Tensor, ""]:
    """J_Q = Σ_j α_j ℓ_q(θ_j): answer j comes up with frequency α_j and has success probability θ_j.

    Args:
        alpha: (K,) frequency of each answer, sums to 1.
        theta: (K,) probability of each answer.
        q: commitment, 0 … 1.
    """
    return alpha @ tsallis.loss(theta, q)


def minimize_expected_loss(alpha: Float[Tensor, " K"], q: float, steps: int = 500) -> Float[Tensor, " K"]:
    """argmin_θ J_Q over distributions θ, by L-BFGS on logits from the uniform one; knows nothing of the escort.

    At q = 0 the minimum lies at a vertex, which logits only approach: the others' mass is what is left after `steps`.

    Args:
        alpha: (K,) frequency of each answer, sums to 1.
        q: commitment, 0 … 1.
        steps: of L-BFGS.
    """
    return minimize_over_distributions(partial(expected_loss, alpha, q=q), len(alpha), steps)


def minimize_over_distributions(
    loss: Callable[[Float[Tensor, " K"]], Float[Tensor, ""]], answers: int, steps: int = 500
) -> Float[Tensor, " K"]:
    """argmin of a loss over distributions (K,), by L-BFGS on logits from the uniform one.

    Args:
        loss: of a distribution, differentiable.
        answers: K.
        steps: of L-BFGS.
    """
    logits = torch.zeros(answers, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [logits], max_iter=steps, tolerance_grad=1e-14, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        found = loss(logits.softmax(0))
        torch.autograd.backward(found)
        return found

    search.step(closure)
    return logits.detach().softmax(0)
