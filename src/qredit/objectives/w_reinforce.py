"""W-REINFORCE: wrong rollouts at full weight, right ones at a small one."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.counts import weigh_right_and_wrong
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2506.01347", "code")
def w_reinforce(weight: float = 0.1, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """Advantage `weight` on right rollouts and -1 on wrong ones, and all rows stay in the token mean.

        loss = -(1/Σ_i|o_i|) Σ_i Σ_t min(ρ A_i, clip(ρ) A_i),   A_i = weight if r_i = 1 else -1

    weight = 1 is REINFORCE with rewards of ±1. At weight = 0 only wrong rollouts push, as in `nsr`, but divided by the
    tokens of all. Zero on unscored rollouts only. Raises QreditError for rewards other than 0 and 1.

    Source: arXiv 2506.01347, the authors' code.

    Args:
        weight: advantage of right rollouts.
        epsilon_low: the ratio is clipped below 1 - epsilon_low.
        epsilon_high: the ratio is clipped above 1 + epsilon_high.
    """
    weighed = reward() | weigh_right_and_wrong(weight, -1.0)
    return Objective(on_span("sampled", weighed), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
