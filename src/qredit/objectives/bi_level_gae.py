"""Bi-level GAE: returns of turns first, then advantages of the tokens inside each turn."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import whiten_over_tokens
from qredit.credit.turn import turn_reward
from qredit.credit.turn_critic import token_advantage, turn_return
from qredit.objectives._method import method


@method("step", "arXiv 2510.16907", "code")
def bi_level_gae(
    turn_discount: float = 0.95,
    discount: float = 1.0,
    trace_decay: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Objective:
    """Generalised advantage estimation twice: over turns, and then over the tokens of each turn.

        turns:   δ_k = r_k + γ_T V_{k+1} - V_k,   A_k = δ_k + γ_T λ A_{k+1},   G_k = A_k + V_k
        tokens:  A_t = δ_t + γ λ A_{t+1},   δ_t = γ V_{t+1} - V_t, and G_k - V_t on the last token of turn k

    V_k is the critic's estimate `value` at the turn's last token. The advantages are whitened over all tokens of the
    step.

    Args:
        turn_discount: γ_T, between turns. 0.95 is in the documentation of the released code.
        discount: γ, between the tokens of a turn.
        trace_decay: λ, of both.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    A turn without a reward has reward 0. Zero on rollouts that were not scored, and on those without any turn's reward.

    Source: arXiv 2510.16907 (VAGEN), its estimator as released with RAGEN, compared. Difference: turns are told
    by their number. The code finds them by rewards other than 0, and loses a turn of reward 0.

    `value` comes of a `Learner` of yours, or of `--field 'value=critic(discount=…)'` with the same turn_discount: a
    head that is fitted to the rewards still to come. Without a discount it is fitted to the whole episode's reward,
    which holds what was earned already, too, and biases A.
    """
    returns = turn_reward() | turn_return(turn_discount, trace_decay)
    advantage = returns | token_advantage(discount, trace_decay, turn_discount=0.0) | whiten_over_tokens()
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
