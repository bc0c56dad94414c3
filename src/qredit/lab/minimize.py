"""The minimiser of J_Q over categorical distributions, found by descent."""

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
    logits = torch.zeros_like(alpha, requires_grad=True)
    search = torch.optim.LBFGS(
        [logits], max_iter=steps, tolerance_grad=1e-14, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = expected_loss(alpha, logits.softmax(0), q)
        torch.autograd.backward(loss)
        return loss

    search.step(closure)
    return logits.detach().softmax(0)
