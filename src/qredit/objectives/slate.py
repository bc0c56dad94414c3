"""SLATE: steps that continue one text are compared with each other alone."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.turn import center_by_pool, scale_by_pool_std, turn_reward
from qredit.objectives._method import method


@method("step", "arXiv 2602.23440", "code")
def slate(epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-6) -> Objective:
    """The reward of a turn among those of the turns that continue the same text.

        A_k = (r_k - mean r) / (std r + epsilon_std) over the siblings of turn k, std with n-1

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation.

    Zero where all siblings have one reward, on a turn without siblings and on one without a reward. All first turns of
    a group are siblings. Later ones are where a sampler branched, or where rollouts went the same way until then.

    Source: arXiv 2602.23440, eq. 5, compared with official code. Difference: advantages alone. Drawing k candidates
    at every step, and going on from one of them with probability ∝ exp(A/0.7), is `--branching 'candidates()'`. The
    judge that scores thoughts, queries and answers by -1, 0 or 1 is the environment's, and so is the bonus for early
    answers. The objective is there a sum over steps; the token mean is our choice. The divergence from a reference
    model (0.001 there) is added by `| kl_to_reference(…)`.
    """
    advantage = turn_reward() | center_by_pool("sibling") | scale_by_pool_std("sibling", epsilon_std)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
