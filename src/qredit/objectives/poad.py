"""POAD: advantages over tokens that discount between actions and not inside them."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.turn import turn_reward
from qredit.credit.turn_critic import token_advantage
from qredit.objectives._method import method


@method("step", "arXiv 2405.15821", "code")
def poad(
    turn_discount: float = 0.95,
    discount: float = 1.0,
    trace_decay: float = 0.95,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Objective:
    """Action decomposition: a turn's tokens are steps of one decision, and time passes at its end.

        A_t = δ_t + γ_t λ A_{t+1},   δ_t = r_t + γ_t V_{t+1} - V_t
        γ_t = turn_discount and r_t = r_k on the last token of turn k, γ_t = discount and r_t = 0 on the others

    V is the critic's estimate `value`, and 0 behind the last turn.

    Args:
        turn_discount: γ, between turns.
        discount: between the tokens of a turn. 1 in POAD. With that of turns it is the authors' NTPO, for which a long
            action is late.
        trace_decay: λ, per token.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    A turn without a reward has reward 0. Zero on rollouts that were not scored, and on those without any turn's reward.

    Source: arXiv 2405.15821, the backup of its section 4 (BAD), compared with official code.

    `value` comes of a `Learner` of yours, or of `--field 'value=critic(discount=…)'` with the same turn_discount: a
    head that is fitted to the rewards still to come. Without a discount it is fitted to the whole episode's reward,
    which holds what was earned already, too, and biases A.
    """
    advantage = turn_reward() | token_advantage(discount, trace_decay, turn_discount)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
