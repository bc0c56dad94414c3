"""MT-GRPO: GRPO whose tool turns have a reward of their own."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.credit.turn import center_by_pool, scale_by_pool_std, skip_last_turn, turn_reward
from qredit.objectives._method import method


@method("step", "arXiv 2505.11821", "code")
def mt_grpo(
    strength: float = 1.0, epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-4
) -> Objective:
    """GRPO's advantage on all turns, and on each turn before the last that of the turn's own reward.

        A_{i,k} = z(R_i) + strength · z(r_{i,k}) for k < K_i,   A_{i,K_i} = z(R_i)

    z(R_i) is over the group, z(r_{i,k}) over the rollouts of the group that have a turn k before their last, each less
    the mean and divided by the standard deviation (n-1) plus epsilon_std.

    Args:
        strength: of the turns' advantages, 0 … 1 in the paper.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to standard deviations.

    The first part is zero where all rewards of a group are equal, the second where all rewards of a turn are, where
    only one rollout has such a turn, and on a turn without a reward. A rollout of one turn has the first part alone.

    Source: arXiv 2505.11821, compared with official code, which knows two turns: a call of a tool, then the answer.
    Several tool turns, each compared with those at its place, are our extension. Difference: there a rollout without a
    tool's result gets the standardised sum of both rewards, and its turn reward counts in the mean of the others. The
    divergence from a reference model is added by `| kl_to_reference(…)`.
    """
    outcome = reward() | center_by_group() | scale_by_group_std(epsilon_std)
    turns = turn_reward() | skip_last_turn() | center_by_pool("turn") | scale_by_pool_std("turn", epsilon_std)
    surrogate = clipped_ratio(epsilon_low, epsilon_high)
    return Objective(on_span("sampled", outcome + strength * turns), surrogate, mean_per_token())
