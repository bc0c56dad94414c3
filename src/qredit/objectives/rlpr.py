"""RLPR: what a rationale adds to the probability of the gold answer's tokens is the reward."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.answer_probability import answer_probability_gain
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.narrow_group import leave_out_narrow_groups
from qredit.objectives._method import method


@method("reward", "arXiv 2506.18254", "code")
def rlpr(
    format: float = 0.1,
    least_spread: float = 0.5,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.27,
    epsilon_std: float = 1e-6,
) -> Objective:
    """GRPO rewarded by how much more probable the gold answer's tokens are after the rationale, on average.

        r_i = (1 - format) · max(0, p̄_i - base) + format · form_i,   A_i = (r_i - mean_g r) / (std_g r + epsilon_std)
        p̄_i = (1/|y*|) Σ_t p(y*_t | x, z_i, y*_<t),   base the same mean without a rationale, at the start of the run

    Every token that was sampled learns, those of the sampled answer too. The gold answer's are scored and get no
    gradient. Groups whose std is below `least_spread` times its running mean are left out from step 11 on. form_i is
    what the reward function gives: the reward `format` here, tags in the text in RLPR's code.

    Args:
        format: weight of the form.
        least_spread: of the running mean of the standard deviation, see `leave_out_narrow_groups`.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).

    Zero in rows without a gold answer and where all rewards so made are equal in a group.

    Source: arXiv 2506.18254. Compared with the official code, OpenBMB/RLPR at 8490fca:
    `verl/workers/reward_manager/prob.py`, `verl/trainer/ppo/ray_trainer.py`, `examples/RLPR/reproduce_qwen.sh`.
    Difference: the mean runs over the seam and the end of the answer too, which are nearly certain. `base` stands
    behind an empty, closed rationale, there right behind the prompt, between spaces. A forced closing does not make p̄
    0. No penalty for repetition. Nothing is sampled for the groups left out.
    """
    advantage = answer_probability_gain(format) | leave_out_narrow_groups(least_spread) | center_by_group()
    scaled = advantage | scale_by_group_std(epsilon_std)
    return Objective(on_span("sampled", scaled), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
