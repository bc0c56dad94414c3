"""Credit by attention: amplified where the model plans ahead and where it looks back."""

from qredit.core.chain import Credit, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2510.13554", "paper", example="role=amplify_anchors()")
def attention_credit(role: Credit, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """GRPO whose advantages, of either sign, are amplified on tokens with a role in the attention maps.

        A_t = γ_t A_i

    Zero where all rewards of a group are equal.

    Args:
        role: which tokens, and by how much: `amplify_preplans()` (local), `amplify_anchors()` (anchor) or
            `amplify_coupled_anchors(…)` (coupled). The paper's first version amplified positive advantages alone and
            looked for anchors up to 50 tokens later: `amplify_anchors(both_signs=False, horizon=50)`.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2510.13554v2, section 5, whose table 7a finds both signs better than positive ones alone (43.2 and
    42.0, GRPO 39.4). How the maps are read, and the thresholds of the coupled strategy, from others' notes. No official
    code was found. The roles are fixed with the rollouts.
    """
    advantage = reward() | center_by_group() | scale_by_group_std() | role
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
