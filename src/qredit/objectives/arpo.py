"""ARPO: tokens that branches share get the mean of what the branches get."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.prefix_tree import average_over_branches
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2507.19849", "notes")
def arpo(
    epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-6, dual_clip: float | None = 3.0
) -> Objective:
    """GRPO's advantage, averaged on every token over the rollouts that begin with the text up to it.

        A_{i,t} = mean of A_j over the rollouts j of the group that share tokens 1 … t with rollout i

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. verl takes 3.

    Zero where all rewards of a group are equal. GRPO's advantage from the token on that nobody shares.

    Source: arXiv 2507.19849, the "hard" estimate of its text, known from others' notes. Its released code takes the
    "soft" one, which is `grpo()`: the ratios of shared tokens are equal, so both have one gradient wherever no ratio is
    clipped. Difference: advantages alone. Branching where a tool's result makes the policy unsure is
    `--branching 'unsure_turns()'`. Rollouts that went the same way by chance share, too.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std) | average_over_branches()
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
