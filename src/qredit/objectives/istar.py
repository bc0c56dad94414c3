"""iStar: turns are paid by what an implicit reward model says of them."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import subtract_mean_of_others
from qredit.credit.implicit_reward import SAMPLER, implicit_reward
from qredit.credit.reward import reward, skip_unscored
from qredit.credit.turn import subtract_pool_mean_of_others, sum_over_turns
from qredit.objectives._method import method


@method("step", "arXiv 2509.19199", "code", example="model='prm'")
def istar(
    model: str,
    base: str = SAMPLER,
    strength: float = 1.0,
    beta: float = 0.05,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Objective:
    """The outcome less that of the others, plus each turn's implicit reward less that of all other turns.

        A_{i,k} = R_i - mean_{j≠i} R_j + strength · (r_{i,k} - mean of the prompt's other turns' r)
        r_{i,k} = beta · Σ_{t in turn k} (log p_M(o_t) - log p_B(o_t))

    Args:
        model: M, the implicit reward model, by the name of its log-probabilities: `logp@prm` for 'prm'.
        base: B, a name likewise, or 'sampler' for the policy that sampled. A model that was trained by DPO has the
            model that this began with.
        strength: w, of the turns' part.
        beta: the strength that M was trained with.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    Not zero where all rewards of a group are equal: the turns' part stays. A rollout alone in its group keeps its
    reward, and a turn that is the only one its own. M learns beside the policy with `--field logp@prm=implicit_prm()`,
    or is a teacher that has learned.

    Source: arXiv 2509.19199, official code in its leave-one-out form, which its launchers take. Difference: the mean of
    the others is over all turns. The code takes the first turn of each rollout that it meets.
    """
    turns = implicit_reward(model, base, beta) | skip_unscored() | sum_over_turns()
    outcome = reward() | subtract_mean_of_others()
    advantage = outcome + strength * (turns | subtract_pool_mean_of_others("prompt"))
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
