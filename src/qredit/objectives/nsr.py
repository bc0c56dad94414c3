"""NSR: learning from wrong rollouts alone."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.counts import weigh_right_and_wrong
from qredit.credit.filters import leave_out_zeros
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2506.01347", "code")
def nsr(epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """Negative sample reinforcement: advantage -1 on wrong rollouts, right ones left out, of the token mean too.

        loss = (1/Σ_{i wrong}|o_i|) Σ_{i wrong} Σ_t max(ρ, clip(ρ))

    What is taken from wrong rollouts goes to everything else in proportion to its probability, which is meant to keep
    diversity. No baseline: groups that are all wrong still push. Zero in a step without a wrong rollout. Raises
    QreditError for rewards other than 0 and 1.

    Source: arXiv 2506.01347, the authors' code.
    """
    wrong_only = reward() | weigh_right_and_wrong(0.0, -1.0) | leave_out_zeros()
    return Objective(on_span("sampled", wrong_only), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
