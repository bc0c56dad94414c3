"""MaxRL: maximum-likelihood reinforcement learning from 0/1 rewards."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.group import center_and_scale_by_group_mean
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2602.02710", "code")
def maxrl(epsilon: float = 1e-6) -> Objective:
    """The advantage divided by the group's success rate: RL that climbs log p instead of p.

        A_i = (r_i - p̂) / (p̂ + epsilon),   p̂ = mean_g r,   ĝ = -(1/N) Σ_i A_i ∇log p(o_i|x)

    For 0/1 rewards. Zero in groups without a success and in groups of equal rewards: it needs sampled successes, where
    GARL at q = 1 needs only likelihood.

    Because a group without a success gives nothing, its mean is that of log p truncated at order M - 1,
    J_{M-1} = -Σ_{k<M} (1-p)^k / k. `maxrl_uncentred` is the one for J_M, `maxrl_truncated` for any lower order.

    Source: arXiv 2602.02710, the advantage of the authors' released code.
    """
    return Objective(on_span("sampled", reward() | center_and_scale_by_group_mean(epsilon)))
