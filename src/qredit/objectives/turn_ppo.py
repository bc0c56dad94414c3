"""Turn-PPO: advantages against a critic, and ratios, of whole turns."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_turn_ratio
from qredit.credit.turn import turn_reward
from qredit.credit.turn_critic import turn_advantage
from qredit.objectives._method import method


@method("step", "arXiv 2512.17008", "notes")
def turn_ppo(
    discount: float = 0.99, trace_decay: float = 0.9, epsilon_low: float = 0.2, epsilon_high: float = 0.2
) -> Objective:
    """Generalised advantage estimation in which an action is a whole turn.

        δ_k = r_k + γ V_{k+1} - V_k,   A_k = δ_k + γ λ A_{k+1} on all tokens of turn k

    V_k is a critic's estimate `value` at the turn's first token, and 0 behind the last turn. The ratio is one for each
    turn, the geometric mean over its tokens.

    Args:
        discount: γ, per turn.
        trace_decay: λ, per turn.
        epsilon_low, epsilon_high: half-widths of the trust region of a turn's ratio.

    A turn without a reward has reward 0. Zero on rollouts that were not scored, and on those without any turn's reward.

    Source: arXiv 2512.17008, known from others' notes. They leave γ, λ and the ratio open or tell them
    second-hand: check them before use. The widths of the clip are PPO's,
    our choice.

    `value` comes of a `Learner` of yours, or of `--field 'value=critic(discount=…)'` with the same discount: a
    head that is fitted to the rewards still to come. Without a discount it is fitted to the whole episode's reward,
    which holds what was earned already, too, and biases A.
    """
    advantage = turn_reward() | turn_advantage(discount, trace_decay)
    surrogate = clipped_turn_ratio(epsilon_low, epsilon_high)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
