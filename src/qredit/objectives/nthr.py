"""NTHR: negative token hidden reward."""

from qredit.chain import on_span
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.credit.token_influence import soften_by_influence
from qredit.objective import Objective
from qredit.objectives._method import method
from qredit.reduce import mean_per_rollout
from qredit.surrogate import clipped_ratio


@method("token", "arXiv 2505.18830", "notes")
def nthr(strictness: float = 1.0, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """GRPO that punishes a wrong rollout less on tokens whose gradients resemble those of the right rollouts.

        A_t = 2|p̂ - ½| · A_i  where r_i = 0 and Σ_k ⟨e_t, e_k⟩ ⟨h_t, h_k⟩ > τ, else A_i

    k runs over the tokens of the group's right rollouts and p̂ is their share. Zero where all rewards of a group are
    equal; softened tokens are 0 at p̂ = ½.

    Args:
        strictness: of the threshold τ, times the least mean score of a right rollout.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2505.18830, from others' notes. Difference: no KL term; influence of the current policy.
    """
    advantage = reward() | center_by_group() | scale_by_group_std() | soften_by_influence(strictness)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
