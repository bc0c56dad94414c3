"""VPR: actions whose process rewards an oracle verifies, compared in their state and scaled by the step."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.reward import reward
from qredit.credit.turn import at_last_turn, center_by_pool, scale_by_pool_std, skip_equal_pools, turn_reward
from qredit.objectives._method import method


@method("step", "arXiv 2605.10325", "code")
def vpr(
    pool: str = "state",
    outcome: float = 0.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-8,
    dual_clip: float | None = 3.0,
) -> Objective:
    """The reward of a turn less the mean of its state, over the spread of the whole step.

        a_k = r_k - mean of r over the pool of turn k,   A_k = a_k / (std a + epsilon_std), std over the step, with n

    Pools whose rewards are all equal are no part of that standard deviation. The mean of a is 0.

    Args:
        pool: 'state' for turns of the prompt that were taken in one state, 'sibling' for those that continue one text.
        outcome: κ. The last turn's reward is its own plus outcome · R_i.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    Zero where all rewards of a pool are equal, on a turn alone in it, and on one without a reward (with an outcome: on
    one before the last).

    Source: arXiv 2605.10325, compared with official code: its mode `mean_then_batch_whiten`. Difference: advantages
    alone. Drawing four candidates in every state, and going on with the best, is `--branching 'candidates(k=4,
    temperature=0)'`. Tokens of equal pools stay in the denominator; there they are masked. An older mode, not here,
    compares the turns at one place over all prompts.
    """
    rewards = turn_reward()
    earned = rewards + outcome * (reward() | at_last_turn()) if outcome else rewards
    centred = earned | skip_equal_pools(pool) | center_by_pool(pool)
    whitened = centred | scale_by_pool_std("batch", epsilon_std, correction=0)
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", whitened), surrogate, mean_per_token())
