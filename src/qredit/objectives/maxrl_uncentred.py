"""MaxRL without its control variate: the mean score of the right rollouts."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.group import divide_by_group_mean
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2602.02710", "notes")
def maxrl_uncentred() -> Objective:
    """The average of the right rollouts' scores: unbiased for log p truncated at the group's size.

        A_i = r_i / p̂,   p̂ = mean_g r,   E[ĝ] = -∇J_M,   J_M = -Σ_{k=1..M} (1-p)^k / k

    For 0/1 rewards. Of greater variance than `maxrl`, which subtracts 1 where there is a success and so climbs J_{M-1}.
    Zero in groups without a success and on wrong rollouts.

    Source: arXiv 2602.02710 (the estimator before its control variate).
    """
    return Objective(on_span("sampled", reward() | divide_by_group_mean()))
