"""Tree-GRPO: a leaf is compared with the leaves of its tree, and with those of the prompt's other trees."""

from qredit.core.chain import Source, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.reward import reward
from qredit.credit.turn import at_last_turn, center_by_pool, scale_by_pool_std, sum_turns_to_come
from qredit.objectives._method import method


@method("step", "arXiv 2509.21240", "code")
def tree_grpo(
    keep_lone: bool = False,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-6,
) -> Objective:
    """GRPO's advantage, plus the same among the rollouts that were branched in one tree.

        A_i = (R_i - mean_g R) / (std_g R + epsilon_std) + (R_i - mean_T R) / (std_T R + epsilon_std)

    g is the group, T the rollouts of the group that have the same number `tree`, and the standard deviations are with
    n-1.

    Args:
        keep_lone: a rollout alone in its tree or group keeps its reward there, as in the released code. Else 0.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to standard deviations.

    The first part is zero where all rewards of a group are equal, the second where all of a tree are. A rollout without
    a tree (-1) is a tree alone. `tree` comes from `--branching 'trees()'`, which grows trees by going on from nodes
    that are drawn at random, or from a maker of yours.

    Source: arXiv 2509.21240, compared with official code. The divergence from a reference model (0.001 there) is added
    by `| kl_to_reference(…)`.
    """

    def standardize(pool: str) -> Source:
        outcome = reward() | at_last_turn() | center_by_pool(pool, keep_lone)
        return outcome | scale_by_pool_std(pool, epsilon_std, keep_lone=keep_lone) | sum_turns_to_come()

    surrogate = clipped_ratio(epsilon_low, epsilon_high)
    return Objective(on_span("sampled", standardize("prompt") + standardize("tree")), surrogate, mean_per_token())
