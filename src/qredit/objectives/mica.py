"""MICA, first called MAPO: turns paid both for what they did at once and for what came of it."""

from qredit.core.chain import Source, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.turn import center_by_pool, scale_by_pool_std, sum_turns_to_come, turn_reward
from qredit.objectives._method import method


@method("step", "arXiv 2603.06194", "notes")
def mica(
    delayed: float = 0.5,
    immediate: float = 0.5,
    discount: float = 0.85,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    epsilon_std: float = 1e-6,
    dual_clip: float | None = 3.0,
) -> Objective:
    """Each turn's return among those at its place, mixed with its own reward among all turns of the prompt.

        A_{i,k} = delayed · z_k(G_{i,k}) + immediate · z(r_{i,k}),   G_{i,k} = Σ_{j≥k} discount^{j-k} r_{i,j}

    r_{i,k} is the reward of turn k, in the source by how much it brought the other side's state nearer to a target. z_k
    is over the rollouts of the group that have a turn k, z over all turns of the group, each less the mean and divided
    by the standard deviation (n-1) plus epsilon_std.

    Args:
        delayed: α, weight of the returns.
        immediate: β, weight of the rewards.
        discount: γ, per turn. The text does not say it. 0.85 stands in the authors' launchers.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to standard deviations.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    No reward of the rollout is read, but that it is there. The first part is zero where all returns at a place are
    equal or only one rollout has a turn there, the second where all rewards of the prompt's turns are equal. A turn
    without a reward has no second part, and no first where no later turn has a reward either.

    Source: arXiv 2603.06194, known from others' notes; discount, clip and token mean from the launchers in
    2200xiaohu/MAPO at 25ea380, whose estimator is not in that repository. Not "MAPO" of arXiv 2509.18849. With
    discount 1 and a reward that is the fall of a potential, returns are its fall to the end.
    """

    def standardize(source: Source, pool: str) -> Source:
        return source | center_by_pool(pool) | scale_by_pool_std(pool, epsilon_std)

    returns = standardize(turn_reward() | sum_turns_to_come(discount), "turn")
    rewards = standardize(turn_reward(), "prompt")
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", delayed * returns + immediate * rewards), surrogate, mean_per_token())
