"""REINFORCE++ with a baseline: rewards less their group's mean, whitened over all tokens of the step."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, whiten_over_tokens
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2501.03262", "code")
def reinforce_pp_baseline(epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon: float = 1e-8) -> Objective:
    """The group's mean is the baseline, the step's tokens are the scale.

        a_i = r_i - mean_g r,   A_i = (a_i - mean a) / √(variance a + epsilon),   means over all sampled tokens

    Unlike GRPO's, the scale does not grow for prompts that are nearly always or nearly never right. Where a group's
    rewards are equal A_i is that of a_i = 0: small, and 0 only if the token mean of a is. Zero where every group of the
    step is equal.

    Source: arXiv 2501.03262, verl's code. Difference: a rollout alone in its group has a_i = 0 (verl: r_i). No KL
    inside the reward.

    Args:
        epsilon_low: the ratio is clipped below 1 - epsilon_low.
        epsilon_high: the ratio is clipped above 1 + epsilon_high.
        epsilon: added to the variance, under the root that divides.
    """
    return Objective(
        on_span("sampled", reward() | center_by_group() | whiten_over_tokens(epsilon)),
        clipped_ratio(epsilon_low, epsilon_high),
        mean_per_token(),
    )
