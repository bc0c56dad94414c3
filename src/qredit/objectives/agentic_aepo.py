"""AEPO for agents: entropy-balanced policy optimisation."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import gradient_keeping_clip
from qredit.credit.entropy_weight import scale_by_entropy_score
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2510.14545", "code")
def agentic_aepo(
    strength: float = 0.2, epsilon_low: float = 0.2, epsilon_high: float = 0.2, dual_clip: float | None = 3.0
) -> Objective:
    """GRPO, heavier where the policy was unsure, under a clip that keeps the gradient of good tokens that moved far.

        A_t = A_i (1 + strength · z_t),   z_t = (H_t - mean H) / std H over the step, std with n - 1

    Zero where all rewards of a group are equal.

    Args:
        strength: of the entropy score.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. verl takes 3.

    Source: arXiv 2510.14545, from others' notes, compared with official code. Difference: advantage and clip alone. Its
    branching rollouts are those of `--branching 'balanced_turns(…)'`. The reduction is one mean over all tokens.
    """
    advantage = reward() | center_by_group() | scale_by_group_std() | scale_by_entropy_score(strength)
    clip = gradient_keeping_clip(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), clip, mean_per_token())
