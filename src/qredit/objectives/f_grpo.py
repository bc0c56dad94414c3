"""F-GRPO: candidates and their ranking are two phases, each with an advantage of its own."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.turn import at_last_turn, center_by_pool, skip_last_turn, turn_reward
from qredit.objectives._method import method


@method("step", "arXiv 2605.12995", "notes")
def f_grpo(strength: float = 1.0, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """The reward of each phase less the group's mean of that phase: the first turns propose, the last one ranks.

        A_{i,k} = r_{i,k} - mean of r_{·,k} for k < K_i,   A_{i,K_i} = strength · (r_{i,K_i} - mean of r_{·,K_·})

    The reward of the proposing turn is one without order, such as recall. That of the ranking turn looks at places,
    such as NDCG.

    Args:
        strength: λ, of the ranking turn.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Zero where all rewards of a phase are equal in the group, and on a turn without a reward.

    Source: arXiv 2605.12995, known from others' notes. Difference: its two phases stand in one completion, here they
    are turns. Its ratio, one for each phase, and its price on wrong format are not known. Ratio and clip per token and
    the token mean are our choice. Several proposing turns, each compared with those at its place, are our extension.
    Other methods are called F-GRPO, too.
    """
    proposals = turn_reward() | skip_last_turn() | center_by_pool("turn")
    ranking = turn_reward() | at_last_turn() | center_by_pool("prompt")
    surrogate = clipped_ratio(epsilon_low, epsilon_high)
    return Objective(on_span("sampled", proposals + strength * ranking), surrogate, mean_per_token())
