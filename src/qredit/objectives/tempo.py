"""TEMPO: temporal differences on the tree of sampled rollouts."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.prefix_tree import add_tree_difference
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2509.18314", "code")
def tempo(
    epsilon_low: float = 0.2, epsilon_high: float = 0.28, epsilon_std: float = 1e-6, dual_clip: float | None = 3.0
) -> Objective:
    """GRPO's advantage plus the change of outlook at each token where rollouts of the prompt fork.

        A_t = (r_i - mean_g r + V(s_{t+1}) - V(s_t)) / (std_g r + epsilon_std)

    V(s) is the mean reward of the rollouts that begin with s. Zero where all rewards of a group are equal. GRPO's
    advantage from the token on which nobody shares.

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. verl takes 3.

    Source: arXiv 2509.18314, official code. Difference: a rollout alone in its group gets 0, where the code's standard
    deviation is NaN. As there, the walk stops at the first token that was not sampled.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std) | add_tree_difference()
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
