"""MaxRL of a chosen order, between expected reward and maximum likelihood."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.counts import credit_truncated_log
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2602.02710", "code", example="order=4")
def maxrl_truncated(order: int) -> Objective:
    """Climb log p truncated at `order` T: T = 1 is expected reward, T = M what a group of M can know of log p.

        J_T(p) = -Σ_{k=1..T} (1-p)^k / k,   A⁺ = 1,   A⁻ = -Σ_{k=2..T} C(wrong-1, k-1) / C(M-1, k-1)

    Unbiased for every T ≤ M, without a baseline. Zero on unscored rollouts, and on wrong ones at T = 1. Groups of equal
    rewards cancel in expectation only. Raises QreditError for rewards other than 0 and 1.

    Args:
        order: T. In groups smaller than T it is their size.

    Source: arXiv 2602.02710, the Maclaurin weights of the authors' code.
    """
    return Objective(on_span("sampled", reward() | credit_truncated_log(order)))
