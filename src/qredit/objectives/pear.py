"""PEAR: right answers are worth less the more uncertain the thinking was."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.phase_entropy import reward_by_phase_entropy
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("reward", "arXiv 2510.08026", "notes", example="right=0.9, wrong=0.1")
def pear(
    right: float,
    wrong: float,
    answer_weight: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-4,
) -> Objective:
    """GRPO with a reward that pays for thinking at low entropy, and so for short thinking, without a target length.

        R_i = min(1, right - max(0, H_thinking - answer_weight · H_answer)) if right, else wrong

    Args:
        right: reward of a right answer before the entropies, in (0, 1]. The source's value is not known to us.
        wrong: reward of any other answer, in [0, 1). Its value is not known to us either.
        answer_weight: how far entropy in the answer makes up for entropy in the thinking (tested there: -1 … 2).
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).

    Zero where no rollout of a group is right.

    Source: arXiv 2510.08026, known from others' notes. Difference: a wrong answer and an unreadable one get the same.
    """
    advantage = (
        reward()
        | reward_by_phase_entropy(right, wrong, answer_weight)
        | center_by_group()
        | scale_by_group_std(epsilon_std)
    )
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
