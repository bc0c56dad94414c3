"""AEM: adaptive entropy modulation of the credit of turns."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.credit.turn_entropy import scale_by_turn_entropy
from qredit.objectives._method import method


@method("step", "arXiv 2605.00425", "notes")
def aem(
    strength: float = 1.0,
    least_range: float = 0.1,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-4,
) -> Objective:
    """GRPO, heavier on turns in which the policy was sure and lighter on those in which it was not.

        A_{i,k} = A_i · exp(-strength · h_{i,k}) / mean_g exp(-strength · h),
        h_{i,k} = (H_{i,k} - min_g H) / (max_g H - min_g H)

    H_{i,k} is the mean entropy of the sampled tokens of turn k under the policy that sampled, and g all turns of the
    group's rollouts. A rollout without tools is one turn. The factor then differs between rollouts alone.

    Args:
        strength: λ. A turn of the highest entropy counts e^{-λ} times one of the lowest.
        least_range: nats. In a group whose turns differ by less in H the advantage stays A_i.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1) of A_i.

    Zero where all rewards of a group are equal. Elsewhere the advantages of a group no longer sum to 0.

    Source: arXiv 2605.00425v3, known from others' notes. Difference: they name no base method. GRPO, with its clip and
    one mean per rollout, is our choice. The reward of 10 or 0 and the price of invalid actions belong to their tasks.
    """
    advantage = (
        reward() | center_by_group() | scale_by_group_std(epsilon_std) | scale_by_turn_entropy(strength, least_range)
    )
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
