"""GTPO, Group Turn Policy Optimization: discounted returns of turns, standardised."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.turn import center_by_pool, scale_by_pool_std, sum_turns_to_come, turn_reward
from qredit.objectives._method import method


@method("step", "arXiv 2511.14846", "notes", example="pool='turn'")
def gtpo(
    pool: str,
    discount: float = 0.9,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    epsilon_std: float = 1e-6,
) -> Objective:
    """The discounted return of each turn, compared within a pool.

        A_{i,k} = (G_{i,k} - mean G) / (std G + epsilon_std),   G_{i,k} = Σ_{j≥k} discount^{j-k} r_{i,j}

    r_{i,j} is the reward of turn j, the outcome's on the last turn, and the standard deviation is with n-1.

    Args:
        pool: 'turn' compares those at one place, 'prompt' all turns of the group. The notes do not say which it is, so
            there is no default.
        discount: γ, per turn.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation.

    Zero where all returns of a pool are equal, or it is one turn. A turn without a reward adds 0 to returns, and has
    none where no later turn has a reward either. With discount 1, a reward on the last turn alone and pool 'turn' it
    is GRPO, in groups whose rollouts have equally many turns.

    Source: arXiv 2511.14846, known from others' notes. Difference: an asymmetric clip is said without its widths;
    DAPO's are our choice. A price of 0.1 on turns of a wrong format belongs to the environment. A partial outcome of
    failed rollouts, from the likeness of their code to that of right ones, is not here: its form is not known. Two
    other methods are called GTPO (arXiv 2508.04349 and 2508.03772).
    """
    returns = turn_reward() | sum_turns_to_come(discount) | center_by_pool(pool) | scale_by_pool_std(pool, epsilon_std)
    return Objective(on_span("sampled", returns), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
