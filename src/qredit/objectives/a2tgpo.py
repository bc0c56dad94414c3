"""A2TGPO: gains in the answer's likelihood compared place by place, and one ratio for each turn."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_turn_ratio
from qredit.credit.answer_gain import answer_gain
from qredit.credit.clip_scale import scale_clip
from qredit.credit.reward import reward
from qredit.credit.turn import (
    at_last_turn,
    center_by_pool,
    divide_by_root_of_turns_to_come,
    scale_by_pool_std,
    sum_turns_to_come,
)
from qredit.objectives._method import method


@method("step", "arXiv 2605.06200", "paper")
def a2tgpo(
    strength: float = 1.0,
    discount: float = 1.0,
    logarithm: bool = False,
    epsilon_low: float = 3e-3,
    epsilon_high: float = 4e-3,
    widening: float = 0.3,
    epsilon_std: float = 1e-6,
) -> Objective:
    """The outcome's advantage on all turns, and before the last a sum of gains that were compared place by place.

        A_{i,k} = z(R_i) + strength · Σ_{j=k}^{K_i-1} discount^{j-k} z_j(g_{i,j}) / √(K_i - k),   A_{i,K_i} = z(R_i)

    g_{i,j} is what turn j made the reference answer more likely, see `answer_gain`, and z_j is over the rollouts of the
    group that have a gain at place j. Standard deviations are the population's. The ratio is one for each turn.

    Args:
        strength: of the gains. 1 in the paper, 0.3 in the released code.
        discount: γ, per turn.
        logarithm: gains of log p in the place of p, as in the released code. The paper says both.
        epsilon_low, epsilon_high: half-widths of the trust region of a turn's ratio.
        widening: b. The half-widths of turn j are multiplied by 1 + b · (2 sigmoid(z_j(g)) - 1), the last turn's by 1.
        epsilon_std: added to standard deviations.

    Zero where all rewards of a group are equal and all gains at each place. A rollout of one turn has the outcome
    alone. It needs the field `answer_logp_at`. Where rollouts are episodes the trainer fills it, under the policy that
    sampled and without a gradient. Elsewhere the objective is refused by name.

    Source: arXiv 2605.06200. The released code finds turns by rewards other than 0, and so loses one whose gain is 0.
    """
    outcome = (
        reward()
        | at_last_turn()
        | center_by_pool("prompt")
        | scale_by_pool_std("prompt", epsilon_std, correction=0)
        | sum_turns_to_come()
    )
    gains = (
        answer_gain(logarithm)
        | center_by_pool("turn")
        | scale_by_pool_std("turn", epsilon_std, correction=0)
        | scale_clip(widening)
        | sum_turns_to_come(discount)
        | divide_by_root_of_turns_to_come()
    )
    surrogate = clipped_turn_ratio(epsilon_low, epsilon_high)
    return Objective(on_span("sampled", outcome + strength * gains), surrogate, mean_per_rollout())
