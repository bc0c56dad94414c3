"""STEER: token weights that steady the entropy."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.entropy_change import scale_by_entropy_change
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2510.10150", "code")
def steer(
    least: float = 0.8, epsilon_low: float = 0.2, epsilon_high: float = 0.28, dual_clip: float | None = 10.0
) -> Objective:
    """DAPO's loss, lighter on tokens whose update would move the entropy most.

        A_t = λ_t A_i,   λ_t = least^(|Ω_t| / max |Ω|),   Ω = (A / p_old) · p (1 - p) (log p + H)

    with A_i GRPO's advantage and the maximum over the optimiser step, at least 0.02. Zero where all rewards of a group
    are equal.

    Args:
        least: the weight of the token that moves the entropy most.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. Its recipe takes 10.

    Source: arXiv 2510.10150, official code, its exponential map. Difference: the maximum is that of the step, not of a
    micro-batch. λ is positive, so weighing the advantage is weighing the clipped loss.
    """
    advantage = reward() | center_by_group() | scale_by_group_std() | scale_by_entropy_change(least)
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
