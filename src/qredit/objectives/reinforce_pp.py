"""REINFORCE++: rewards whitened over all tokens of the step."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import whiten_over_tokens
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2501.03262", "code")
def reinforce_pp(epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon: float = 1e-8) -> Objective:
    """No baseline per prompt: the mean and variance of the reward are those of all tokens of the optimiser step.

        A_i = (r_i - mean) / √(variance + epsilon),   loss = -(1/Σ_i|o_i|) Σ_i Σ_t min(ρ A_i, clip(ρ) A_i)

    Mean and variance (n-1) count every sampled token once. The formula takes groups of one rollout, too (TRL does not),
    and a prompt that is always answered is rewarded for being easy. Zero where all rewards of the step are equal.

    Source: arXiv 2501.03262, verl's code. Difference: no discount, with which every token of a rollout has its reward
    as its return. No KL inside the reward.

    Args:
        epsilon_low: the ratio is clipped below 1 - epsilon_low.
        epsilon_high: the ratio is clipped above 1 + epsilon_high.
        epsilon: added to the variance, under the root that divides.
    """
    return Objective(
        on_span("sampled", reward() | whiten_over_tokens(epsilon)),
        clipped_ratio(epsilon_low, epsilon_high),
        mean_per_token(),
    )
