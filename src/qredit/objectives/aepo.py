"""AEPO: arbitrary entropy policy optimisation."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reinforced import reinforce_drawn
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2510.08141", "code")
def aepo(
    epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-6, dual_clip: float | None = 3.0
) -> Objective:
    """GRPO, and REINFORCE on good rollouts of another temperature, which hold the entropy at a target.

        A_i = (r_i - mean_g r) / (std_g r + epsilon_std),   A_i = 1 where `reinforced`
        loss = -(1/Σ_i|o_i|) Σ_i Σ_t min(ρ A_i, clip(ρ) A_i)

    The rollouts are drawn by `--drawing 'hold_entropy(target=…)'`, which gives the field. Zero where all rewards of a
    group are equal, but for those rollouts.

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap.

    Source: arXiv 2510.08141, the authors' code, on whose defaults these are. Difference: the statistics of a group are
    those of its plain rollouts that stay, there of all that were drawn first.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std) | reinforce_drawn()
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
