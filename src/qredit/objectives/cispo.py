"""CISPO: the importance weight is capped, and no token's gradient is dropped."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import score_function
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2506.13585", "code")
def cispo(ratio_max: float = 5.0, epsilon_std: float = 1e-4) -> Objective:
    """GRPO's advantage times log p, weighted by the capped importance ratio held constant.

        loss = -(1/Σ_i|o_i|) Σ_i Σ_t sg[min(ρ_it, ratio_max)] A_i log p_it

    Where a clipped ratio stops the gradient of a token that has moved, this bounds its weight. Zero where all rewards
    of a group are equal.

    Args:
        ratio_max: the cap itself, as TRL's epsilon_high for this loss. TRL recommends 5.
        epsilon_std: added to the standard deviation (n-1).

    Source: arXiv 2506.13585, TRL's code. Difference: no cap from below, as in TRL and the paper's experiments. verl
    clips to (1 - low, 1 + high), which is this one at low = 1 and high = ratio_max - 1.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std)
    return Objective(on_span("sampled", advantage), score_function(ratio_max), mean_per_token())
