"""SIOP: turns are paid by what they did for the answer that their rollout came to, without labels."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.answer_support import scale_by_answer_share, support_gain
from qredit.credit.reward import skip_unscored
from qredit.credit.turn import center_by_pool, scale_by_pool_std, sum_turns_to_come
from qredit.objectives._method import method


@method("step", "arXiv 2605.04984", "code")
def siop(
    terminal: float = 0.5,
    discount: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-6,
    dual_clip: float | None = 3.0,
) -> Objective:
    """The gain in the likelihood of the rollout's own answer as the reward of each turn, by how many agree with it.

        r_{i,k} = f_i · (log s_{i,k} - log s_{i,k-1}), and f_i · terminal more on the last turn
        A_{i,k} = Σ_{j≥k} discount^{j-k} z(r_{i,j})

    s_{i,k} is the likelihood of rollout i's answer, or of answers that mean the same, after turn k, and f_i the share
    of the group's answered rollouts that gave it. z is over all turns of the group's rollouts, less the mean and
    divided by the standard deviation (n-1) plus epsilon_std.

    Args:
        terminal: 1 - λ, paid for the answer itself.
        discount: γ, per turn.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    Zero where all rewards of a group's turns are equal. A rollout without an answer has rewards of 0, which stay in
    the pool. One that was not scored is in no pool and gets 0. One of a single turn has `terminal` alone. It needs the
    fields `support@before` and `support@after`, see `support_gain`. `--field 'support@before=answer_support(…)'` fills
    both under a model that is not trained, and `cluster`, which is by equal texts unless it gives it by meaning.

    Source: arXiv 2605.04984, compared with official code. Difference: f may there be weighed by how far observations
    entail the answer (exp(η · entailment)). η is 0 by default in the code and 1 in its launcher. A spread below
    epsilon_std counts as 1 there. The divergence from a reference model (0.005 there) is added by
    `| kl_to_reference(…)`.
    """
    gains = support_gain(terminal) | skip_unscored() | scale_by_answer_share()
    pooled = gains | center_by_pool("prompt") | scale_by_pool_std("prompt", epsilon_std) | sum_turns_to_come(discount)
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", pooled), surrogate, mean_per_token())
