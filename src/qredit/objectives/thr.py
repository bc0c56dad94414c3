"""THR: token hidden reward."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import sum_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.group_tokens import divide_by_group_tokens
from qredit.credit.reward import reward
from qredit.credit.token_influence import tilt_by_influence
from qredit.objectives._method import method


@method("token", "arXiv 2510.03669", "code", example="tilt=0.1")
def thr(tilt: float, strictness: float = 1.0, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """GRPO on the tokens that influence the group's right answers most, tilted towards exploiting or exploring.

        A_t = 1[|THR_t| > τ] · (1 + tilt · sign THR_t) · A_i,   THR_t = ± Σ_k (1/|y_k|) ⟨e_t, e_k⟩ ⟨h_t, h_k⟩
        loss = -(1/Σ_i|y_i|) Σ_i Σ_t min(ρ A_t, clip(ρ) A_t), averaged over prompts

    k runs over the tokens of the group's right rollouts, + holds in right rollouts and - in wrong ones, e is the
    prediction error and h the hidden state: a wrong token whose inner product is -0.27 has THR +0.27. Zero where all
    rewards of a group are equal.

    Args:
        tilt: > 0 exploits, < 0 explores, 0 keeps the dominant tokens only. The source takes 0.1 either way.
        strictness: of the threshold τ, times the least mean score of a right rollout.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2510.03669, from others' notes, compared with official code. Difference: no KL term. Influence of the
    current policy.
    """
    advantage = reward() | center_by_group() | scale_by_group_std() | tilt_by_influence(strictness, tilt)
    credit = on_span("sampled", advantage | divide_by_group_tokens())
    return Objective(credit, clipped_ratio(epsilon_low, epsilon_high), sum_per_rollout())
