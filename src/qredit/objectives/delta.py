"""DelTA: token weights from the two sides of the gradient."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.gradient_side import weigh_by_gradient_side
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2605.21467", "code")
def delta(
    least: float = 0.8,
    most: float = 1.2,
    refinements: int = 1,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    dual_clip: float | None = 10.0,
) -> Objective:
    """DAPO's loss, heavier on tokens whose gradient separates the rewarded side from the other.

        A_t = λ_t A_i / (mean of λ over the generation),   λ = least + (most - least) · α
        α = sigmoid((‖v - μ_other‖² - ‖v - μ_own‖²) / γ),   v_t = (1 - p_t) h_t

    h_t is the state that predicts token t, p_t the token's probability, μ the mean of v over the positive and over the
    negative side, weighted by |A|, γ the standard deviation of the margins of a side: see `weigh_by_gradient_side`. λ
    is computed once for a generation, by the policy that sampled it. Zero where all rewards of a group are equal.

    Args:
        least, most: range of the weights.
        refinements: how often the two centres are recomputed with the weights.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. Its scripts take 10.

    Source: arXiv 2605.21467. Compared with the official code, RUCBM/DelTA at cf048bd:
    `verl-DelTA/verl/workers/actor/dp_actor.py`, `compute_log_prob_h`, and `recipe/dapo/srcs/run_DelTA.sh`. Difference:
    the loss alone, without the overlong penalty on its rewards.
    """
    advantage = reward() | center_by_group() | scale_by_group_std() | weigh_by_gradient_side(least, most, refinements)
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
