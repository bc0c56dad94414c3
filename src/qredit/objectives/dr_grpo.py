"""Dr.GRPO: GRPO without its two normalisation biases."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import sum_per_length
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2503.20783", "code", example="length=64")
def dr_grpo(
    length: int, epsilon_low: float = 0.2, epsilon_high: float = 0.2, dual_clip: float | None = None
) -> Objective:
    """GRPO with no division by the group's std nor by the rollout's own length.

        A_i = r_i - mean_g r,   loss = -(1/(N·length)) Σ_i Σ_t min(ρ A_i, clip(ρ) A_i)

    Args:
        length: the constant that token sums are divided by. The paper uses the generation budget.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i. None, as published, for no cap.

    Zero where all rewards of a group are equal. Source: arXiv 2503.20783.
    """
    advantage = reward() | center_by_group()
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, sum_per_length(length))
