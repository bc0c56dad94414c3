"""DAPO's loss: GRPO's advantage, a higher upper clip, one mean over all tokens."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2503.14476", "code")
def dapo(
    epsilon_low: float = 0.2, epsilon_high: float = 0.28, epsilon_std: float = 1e-4, dual_clip: float | None = 3.0
) -> Objective:
    """GRPO's advantage under "clip-higher" and a token-level mean.

        loss = -(1/Σ_i|o_i|) Σ_i Σ_t min(ρ A_i, clip(ρ, 1-epsilon_low, 1+epsilon_high) A_i)

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i. 3 is verl's default, the authors' recipe for verl
            sets 10, the paper's formula and TRL have none: None.

    Zero where all rewards of a group are equal. Source: arXiv 2503.14476. Difference: the loss alone. Its
    dynamic sampling and overlong reward shaping belong to the sampler and the reward.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std)
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
