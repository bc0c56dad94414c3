"""MatchTIR: GRPO's advantage, averaged with one over discounted returns at the same place."""

from qredit.core.chain import Source, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.reward import reward
from qredit.credit.turn import at_last_turn, center_by_pool, scale_by_pool_std, sum_turns_to_come, turn_reward
from qredit.objectives._method import method


@method("step", "arXiv 2601.10712", "code")
def matchtir(
    discount: float = 0.9,
    keep_lone: bool = False,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-6,
    dual_clip: float | None = 3.0,
) -> Objective:
    """The mean of two advantages: of the rollout among its group, and of each turn's return among those at its place.

        A_{i,k} = ½ (z(R_i) + z_k(G_{i,k})),   G_{i,k} = Σ_{j≥k} discount^{j-k} r_{i,j}

    R_i is the reward of the rollout, r_{i,j} that of turn j, such as how well its calls match those of a reference. z
    is over the group and z_k over the rollouts of the group that have a turn k, each less the mean and divided by the
    standard deviation (n-1) plus epsilon_std.

    Args:
        discount: λ, per turn.
        keep_lone: a turn that no other rollout has at its place keeps its return, and a rollout alone in its group its
            reward, as in the released code. Else both are 0.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to standard deviations.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    The first part is zero where all rewards of a group are equal, the second where all returns at a place are. A turn
    without a reward adds 0 to returns. It has none, and no second part, where no later turn has a reward either.

    Source: arXiv 2601.10712, compared with official code. There R_i is the sum of the turns' rewards, as it is here
    with an environment unless another reward is named. Turns are told by their number, there by runs of the mask, which
    join two turns without an observation between them. How calls are matched is the affair of the environment, or of
    `matched_calls`. The divergence from a reference model (0.001 there) is added by `| kl_to_reference(…)`.
    """

    def standardize(source: Source, pool: str) -> Source:
        return source | center_by_pool(pool, keep_lone) | scale_by_pool_std(pool, epsilon_std, keep_lone=keep_lone)

    whole = standardize(reward() | at_last_turn(), "prompt") | sum_turns_to_come()
    turns = standardize(turn_reward() | sum_turns_to_come(discount), "turn")
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", 0.5 * whole + 0.5 * turns), surrogate, mean_per_token())
