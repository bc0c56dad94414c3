"""IGPO: turns are paid by what they made the reference answer more likely."""

from qredit.core.chain import Source, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.answer_gain import answer_gain
from qredit.credit.reward import reward
from qredit.credit.turn import at_last_turn, center_by_pool, scale_by_pool_std, sum_turns_to_come
from qredit.objectives._method import method


@method("step", "arXiv 2510.14967", "paper")
def igpo(
    discount: float = 1.0,
    joint: bool = True,
    logarithm: bool = False,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-6,
    dual_clip: float | None = 3.0,
) -> Objective:
    """The gain in the reference answer's likelihood as the reward of each turn, the outcome as that of the last.

        r_{i,k} = p_{i,k+1} - p_{i,k} for k < K_i,   r_{i,K_i} = R_i,   A_{i,k} = Σ_{j≥k} discount^{j-k} z(r_{i,j})

    p_{i,k} is the likelihood of the answer before turn k, the geometric mean over its tokens, see `answer_gain`. z is
    over all turns of the group's rollouts, with the population's standard deviation.

    Args:
        discount: γ, per turn.
        joint: gains and outcomes are standardised together, as in the paper. False: each among their own.
        logarithm: log p in the place of p.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to standard deviations.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    Zero where all gains and outcomes of a group are equal. A rollout of one turn has the outcome alone, and so have
    turns whose belief is not known. It needs the field `answer_logp_at`. Where rollouts are episodes the trainer fills
    it, under the policy that sampled and without a gradient. Elsewhere the objective is refused by name.

    Source: arXiv 2510.14967, eq. 5. Difference: the released estimator subtracts the group's mean at the same token
    position, divides by nothing, and cuts the sum at observations. Here is the paper's form. `joint` and `logarithm`
    are options of a later release, known from others' notes. The divergence from a reference model (0.001 there) is
    added by `| kl_to_reference(…)`.
    """

    def standardize(source: Source) -> Source:
        return source | center_by_pool("prompt") | scale_by_pool_std("prompt", epsilon_std, correction=0)

    gains, outcome = answer_gain(logarithm), reward() | at_last_turn()
    standardized = standardize(gains + outcome) if joint else standardize(gains) + standardize(outcome)
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", standardized | sum_turns_to_come(discount)), surrogate, mean_per_token())
