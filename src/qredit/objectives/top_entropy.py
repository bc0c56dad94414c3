"""The 80/20 rule: only the tokens of highest entropy learn."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.down_sample import keep_top_entropy
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2506.01939", "code")
def top_entropy(share: float = 0.2, epsilon_low: float = 0.2, epsilon_high: float = 0.28) -> Objective:
    """DAPO's loss on the fifth of all tokens at which the policy was least sure.

        loss = -(1/Σ_i|o_i|) Σ_i Σ_t 1[H_t ≥ τ] min(ρ A_i, clip(ρ) A_i),   τ the (1 - share)-quantile of H over the step

    Zero on the other tokens, which the denominator goes on counting, and where all rewards of a group are equal.

    Args:
        share: of the step's sampled tokens that learn.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2506.01939, in the reading of TRL 1.16 (`top_entropy_quantile`). Difference: the quantile is that of
    the optimiser step, TRL's that of one micro-batch over all processes.
    """
    advantage = reward() | center_by_group() | scale_by_group_std() | keep_top_entropy(share)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
