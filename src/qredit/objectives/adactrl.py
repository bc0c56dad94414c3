"""AdaCtrl: the policy says how hard a question is and thinks as long as that asks for."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.difficulty import add_difficulty_rewards, success_as_sign
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("reward", "arXiv 2505.18822", "code")
def adactrl(
    threshold: float = 0.625,
    length_weight: float = 0.5,
    tag_weight: float = 0.5,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    epsilon_std: float = 1e-4,
) -> Objective:
    """DAPO's loss on ±1 for the answer, plus rewards for the right tag of difficulty and for the length it asks for.

        r_i = ±1 + length_weight · r_len + tag_weight · r_tag      (r_len, r_tag: `add_difficulty_rewards`)

    Args:
        threshold: a group with a larger share of right rollouts is easy, any other hard.
        length_weight, tag_weight: weights of the two added rewards.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).

    Zero where all rewards so made are equal. A filter of groups by accuracy belongs before it.

    A user of the trained model gives the tag in its place: `qredit eval --decode "begin_with('[Easy]')"`.

    Source: arXiv 2505.18822, the released code: r_len is paid to right and wrong answers alike. Difference: the
    punishment of overlong rollouts is a stage of its own, `subtract_overlong`.
    """
    made = reward() | success_as_sign() | add_difficulty_rewards(threshold, length_weight, tag_weight)
    advantage = made | center_by_group() | scale_by_group_std(epsilon_std)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
