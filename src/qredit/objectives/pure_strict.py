"""PURE with the exact minimum: a rollout is worth its worst step."""

from qredit.core.chain import add, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import subtract_mean_of_others
from qredit.credit.per_token import subtract_token_mean_of_others
from qredit.credit.reward import reward
from qredit.credit.step import skip_step_ends, step_scores, worst_to_come
from qredit.objectives._method import method


@method("step", "arXiv 2504.15275", "code")
def pure_strict(verifiable: float = 1.0, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """The return of a token is the worst step score still to come.

        R_{i,t} = min of s_n over the steps n that end at or after t; 0 where none does
        A_{i,t} = R_{i,t} - Σ_{j≠i} Σ_u R_{j,u} / Σ_{j≠i} |o_j| + verifiable · (r_i - mean_{j≠i} r_j)

    s_n is `step_score`, by `--field 'step_score=process_reward_model(path)'` or `judge_step_scores(url, model)`. Zero
    on the last token of each step, its separator.

    Args:
        verifiable: weight of the outcome reward.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2504.15275, the authors' code on verl. Difference: the minimum runs over step ends alone, there over
    every token, where a token inside a step holds 0 and no return is above 0. The baseline divides by the others'
    tokens and not by their padded width. Separators get 0, as in the authors' other code. The outcome reward is added
    to the return, not to the score of the last token. No whitening, no KL term.
    """
    process = step_scores() | worst_to_come() | subtract_token_mean_of_others()
    outcome = reward() | subtract_mean_of_others()
    advantage = add(process, verifiable * outcome) | skip_step_ends()
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
