"""R3-RAG: every retrieval step is an episode of its own, whose reward the outcome scales."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import whiten_over_tokens
from qredit.credit.reward import reward, scale_by_outcome
from qredit.credit.turn import at_last_turn, skip_last_turn, turn_reward
from qredit.credit.turn_critic import token_advantage
from qredit.objectives._method import method


@method("step", "arXiv 2505.23794", "code")
def r3_rag(
    right: float = 1.6,
    wrong: float = 0.8,
    answer: float = 2.0,
    trace_decay: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Objective:
    """PPO inside each turn, with no look ahead to the next.

        r'_k = right · r_k if R_i > 0, else wrong · r_k, for k < K_i,   r'_{K_i} = answer · R_i
        A_t = δ_t + λ A_{t+1},   δ_t = V_{t+1} - V_t, and r'_k - V_t on the last token of turn k

    r_k is the reward of a turn before the last, 0 … 1 in the source: how relevant what it retrieved is. V is the
    critic's estimate `value`. The advantages are whitened over all tokens of the step.

    Args:
        right: factor of the turns' rewards in a rollout whose reward is above 0.
        wrong: the same in the others.
        answer: what a reward of 1 pays on the last turn.
        trace_decay: λ, per token.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    A turn without a reward has reward 0. Zero on rollouts that were not scored.

    Source: arXiv 2505.23794, rewards of the official code, compared. Differences: there a rollout that comes to no
    answer has a factor of 0.9 of its own, here it takes `wrong`. A reward of -0.9 for a step of wrong format belongs to
    the environment. One token mean; there a step is a row. No KL term in the reward (0.01 there), and rewards are not
    divided by a running spread.

    `value` comes of a `Learner` of yours. `--field 'value=critic(discount=0)'` is fitted to the rewards of turns as the
    environment gave them, and `critic()` to the whole episode's. Neither is these rewards, and so both bias A.
    """
    steps = turn_reward() | skip_last_turn() | scale_by_outcome(right, wrong)
    earned = steps + answer * (reward() | at_last_turn())
    advantage = earned | token_advantage(1.0, trace_decay, turn_discount=0.0) | whiten_over_tokens()
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
