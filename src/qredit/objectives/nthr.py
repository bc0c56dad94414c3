"""NTHR: negative token hidden reward."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import sum_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.group_tokens import divide_by_group_tokens
from qredit.credit.reward import reward
from qredit.credit.token_influence import soften_by_influence
from qredit.objectives._method import method


@method("token", "arXiv 2505.18830", "code")
def nthr(
    strictness: float = 1.0, kept: float | None = None, epsilon_low: float = 0.2, epsilon_high: float = 0.2
) -> Objective:
    """GRPO that punishes a wrong rollout less on tokens whose gradients resemble those of the right rollouts.

        A_t = η · A_i  where r_i = 0 and Σ_k ⟨e_t, e_k⟩ ⟨h_t, h_k⟩ > τ, else A_i,   η = 2|p̂ - ½|
        loss = -(1/Σ_i|y_i|) Σ_i Σ_t min(ρ A_t, clip(ρ) A_t), averaged over prompts

    k runs over the tokens of the group's right rollouts and p̂ is their share. Zero where all rewards of a group are
    equal. Softened tokens are 0 at p̂ = ½.

    Args:
        strictness: of the threshold τ, times the least mean score of a right rollout.
        kept: η, what a softened token keeps of its advantage. None is 2|p̂ - ½|, as in the source's main runs. 0 is
            that of its section 5.3.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2505.18830, from others' notes, compared with official code. Difference: no KL term. Influence of the
    current policy.
    """
    advantage = reward() | center_by_group() | scale_by_group_std() | soften_by_influence(strictness, kept)
    credit = on_span("sampled", advantage | divide_by_group_tokens())
    return Objective(credit, clipped_ratio(epsilon_low, epsilon_high), sum_per_rollout())
