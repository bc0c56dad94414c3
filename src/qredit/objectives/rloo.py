"""RLOO: REINFORCE with a leave-one-out baseline."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.group import subtract_mean_of_others
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2402.14740", "code")
def rloo() -> Objective:
    """The reward of each rollout less the mean reward of the others, on every sampled token.

        A_i = r_i - mean_{j≠i} r_j,   ĝ = -(1/N) Σ_i A_i ∇log p(o_i|x)

    Unbiased for the gradient of the expected reward at every group size. Zero where all rewards of a group are equal.

    Source: arXiv 2402.14740. Difference: no KL inside the reward.
    """
    return Objective(on_span("sampled", reward() | subtract_mean_of_others()))
