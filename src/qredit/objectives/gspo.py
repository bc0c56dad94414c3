"""GSPO: group sequence policy optimisation."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_sequence_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2507.18071", "code")
def gspo(epsilon_low: float = 3e-4, epsilon_high: float = 4e-4, epsilon_std: float = 1e-4) -> Objective:
    """GRPO's advantage under one importance ratio for the whole rollout.

        loss = -(1/N) Σ_i min(s_i A_i, clip(s_i, 1-epsilon_low, 1+epsilon_high) A_i),
        s_i = exp( (1/|o_i|) Σ_t log p_it - log p_it of the sampler )

    A rollout is clipped as a whole or not at all, by widths that are small because s_i is a mean over tokens. Zero
    where all rewards of a group are equal.

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of s_i.
        epsilon_std: added to the standard deviation (n-1).

    Source: arXiv 2507.18071, the widths of its experiments, verl's and TRL's code. The gradient is carried token by
    token as in verl. It equals that of s_i, which TRL differentiates.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std)
    return Objective(
        on_span("sampled", advantage), clipped_sequence_ratio(epsilon_low, epsilon_high), mean_per_rollout()
    )
