"""EMPG: entropy-modulated policy gradients over turns."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.credit.turn import center_by_pool
from qredit.credit.turn_certainty import next_turn_certainty, scale_by_turn_certainty
from qredit.objectives._method import method


@method("step", "arXiv 2509.09265", "notes", example="bonus=0.05")
def empg(
    bonus: float,
    strength: float = 1.0,
    bonus_strength: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-4,
    dual_clip: float | None = 3.0,
) -> Objective:
    """GRPO, heavier on turns in which the policy was sure, with a bonus for turns after which it is sure.

        A_{i,k} = A_i · e^{-strength · h_{i,k}} / mean e^{-strength · h} + bonus · e^{-bonus_strength · h_{i,k+1}}, less
        its mean over all turns of the step

    h is the mean entropy of a turn's sampled tokens under the policy that sampled, between 0 for the least and 1 for
    the largest of the step. The last turn of a rollout gets no bonus.

    Args:
        bonus: ζ. 0.05 in one port, 0.1 in another. The authors' value is not known, so there is no default.
        strength: k. A turn of the highest entropy counts e^{-k} times one of the lowest.
        bonus_strength: k', the same for the bonus.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1) of A_i.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    Not zero where all rewards of a group are equal: bonus and mean stay. Zero on rollouts without a reward. Where every
    rollout is one turn there is no bonus.

    Source: arXiv 2509.09265, known from others' notes and ports. Difference: means, least and largest are over turns of
    the whole step, however it is cut into micro-batches. Clip and token mean are those of GRPO in verl, our choice.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std) | scale_by_turn_certainty(strength)
    whole = advantage + bonus * next_turn_certainty(bonus_strength) | center_by_pool("batch")
    return Objective(on_span("sampled", whole), clipped_ratio(epsilon_low, epsilon_high, dual_clip), mean_per_token())
