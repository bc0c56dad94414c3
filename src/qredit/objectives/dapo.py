"""DAPO's loss: GRPO's advantage, a higher upper clip, one mean over all tokens."""

from qredit.chain import on_span
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objective import Objective
from qredit.objectives._method import method
from qredit.reduce import mean_per_token
from qredit.surrogate import clipped_ratio


@method("group", "arXiv 2503.14476", "code")
def dapo(epsilon_low: float = 0.2, epsilon_high: float = 0.28, epsilon_std: float = 1e-4) -> Objective:
    """GRPO's advantage under "clip-higher" and a token-level mean.

        loss = -(1/Σ_i|o_i|) Σ_i Σ_t min(ρ A_i, clip(ρ, 1-epsilon_low, 1+epsilon_high) A_i)

    Zero where all rewards of a group are equal. Source: arXiv 2503.14476. Difference: the loss alone; its
    dynamic sampling and overlong reward shaping belong to the sampler and the reward.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
