"""PURE: a rollout is worth its worst step, softly."""

from qredit.core.chain import add, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import subtract_mean_of_others
from qredit.credit.per_token import sum_to_come
from qredit.credit.reward import reward
from qredit.credit.step import skip_step_ends, step_scores, subtract_step_share_of_others, weight_worst_steps
from qredit.objectives._method import method


@method("step", "arXiv 2504.15275", "code")
def pure(
    temperature: float = 0.1, verifiable: float = 1.0, epsilon_low: float = 0.2, epsilon_high: float = 0.2
) -> Objective:
    """The return of a token is close to the worst step score still to come, so that many fair steps cannot be farmed.

        w = softmax_n(-s_n / temperature),   b_i = Σ_{j≠i} Σ_n w_n s_n / Σ_{j≠i} |o_j|
        A_{i,t} = Σ_{n at or after t} (w_n s_n - |step n| b_i) + verifiable · (r_i - mean_{j≠i} r_j)

    s_n in [-1, 1] is a process reward model's P(good) - P(bad) of step n: `step_score`, by `--field
    'step_score=process_reward_model(path)'` or `judge_step_scores(url, model)`. Zero on the last token of each step,
    its separator, and on tokens after the last step where no reward tells rollouts apart.

    Args:
        temperature: of the soft minimum, in units of the score.
        verifiable: weight of the outcome reward.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2504.15275, the authors' code on OpenRLHF. Difference: no KL term in the reward. The outcome reward,
    there added at the last token, stands on every token, which is the same under undiscounted sums. The separator
    counts among the tokens of its step.
    """
    process = step_scores() | weight_worst_steps(temperature) | subtract_step_share_of_others() | sum_to_come()
    outcome = reward() | subtract_mean_of_others()
    advantage = add(process, verifiable * outcome) | skip_step_ends()
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
