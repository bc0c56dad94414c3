"""Pass@k of a whole group: the best rollout's lead over the second best."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, credit_lead, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2503.19595", "notes")
def grpo_passk(epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-6) -> Objective:
    """The best rollout of a group is credited with its lead over the second best, and the others with nothing.

        A_i = max(0, r_i - max_{j≠i} r_j) / (std_g r + epsilon_std),   std with n - 1

    With rewards of 0 and 1 a group teaches something only if exactly one of its rollouts is right. Then A_i is about
    √M on that one. The chain `reward() | credit_lead()` alone has, on average, the gradient ∇E[max r]/M, which is that
    of pass@M over M for such rewards. The division by the std changes this, and so does the mean over tokens.
    `pass_at_k(k)` climbs pass@k for k smaller than M.

    Zero where the best reward of a group is shared, so where all are equal, and where a rollout is alone.

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio. No A_i is negative, so only
            epsilon_high acts.
        epsilon_std: added to the standard deviation. verl takes 1e-6.

    Source: arXiv 2503.19595, from the estimator of this name in verl (verl/trainer/ppo/core_algos.py@26b5d6b), which is
    not by the authors. Its numbers are the same. The paper was not read. Differences: verl refuses a group of one
    rollout, which gets 0 here. Among equal best rewards it picks one, with an advantage of 0.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std) | credit_lead()
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
