"""GRPO: group-relative policy optimisation."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2402.03300", "code")
def grpo(epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-4) -> Objective:
    """The reward of each rollout, centred and scaled by its group, on every sampled token.

        A_i = (r_i - mean_g r) / (std_g r + epsilon_std),   loss = -(1/N) Σ_i (1/|o_i|) Σ_t min(ρ A_i, clip(ρ) A_i)

    Zero where all rewards of a group are equal: the stall that GARL and PAFT are made for.

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio ρ.
        epsilon_std: added to the standard deviation (n-1). TRL takes 1e-4.

    Source: arXiv 2402.03300 (outcome supervision). Difference: no KL term inside the objective.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
