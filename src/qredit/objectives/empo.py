"""EMPO: answers that agree are the reward, without labels."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.measure import cluster_share
from qredit.objectives._method import method


@method("reward", "arXiv 2504.05812", "code")
def empo(epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-4) -> Objective:
    """GRPO whose reward is the share of the group that gives the same answer: semantic entropy, minimised.

        r_i = |cluster of answer i| / M,   A_i = (r_i - mean_g r) / (std_g r + epsilon_std)

    The field `cluster` numbers the distinct answers of a group, -1 where there is none: the answer is empty, or the
    budget of an episode ended before it. Answers are compared as texts, or by `judge_same_answers(url, model)` or
    `--field 'cluster=same_answers("math_equal")'`. A rollout without an answer has reward 0, and so has a group in
    which no two answers agree. Zero in groups that agree as a whole.

    Source: arXiv 2504.05812, the reward for mathematics in the authors' TRL code. Difference: its free-form rewards
    (-0.5 for an empty answer, 0 for one that repeats the question) are left to the reward function.

    Args:
        epsilon_low: the ratio is clipped below 1 - epsilon_low.
        epsilon_high: the ratio is clipped above 1 + epsilon_high.
        epsilon_std: added to the standard deviation that divides.
    """
    advantage = cluster_share() | center_by_group() | scale_by_group_std(epsilon_std)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
