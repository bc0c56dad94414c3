"""STaR: fine-tuning on right rollouts, and on rationalisations of the prompts that had none."""

from qredit.core.chain import on_span
from qredit.core.hint import hint
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import log_likelihood
from qredit.credit.counts import weigh_right_and_wrong
from qredit.credit.filters import leave_out_zeros
from qredit.credit.rationalise import rationalise_failures
from qredit.credit.reward import reward
from qredit.objectives._method import method

HALF = hint(share=0.5)


@method("group", "arXiv 2203.14465", "notes")
def star(proposal: hint = HALF) -> Objective:
    """Imitate right rollouts, and where a prompt has none, those that were drawn with the gold answer in the prompt.

        loss = -(1/Σ|o_i|) Σ_i Σ_t log p(o_it | x, o_i<t),   i the right plain rollouts, and the right hinted ones of
        groups in which no plain rollout is right

    Hinted rollouts are trained behind the plain prompt and count as if it had drawn them (u = 1). So it learns where
    every plain rollout is wrong, and climbs no expectation of the plain policy: `garl(q, proposal=…)` weighs them.

    Args:
        proposal: which share of each group is drawn behind the hint, and how the prompt is shown with the answer.

    Zero on wrong rollouts, and in a step without a right one. Raises QreditError for rewards other than 0 and 1.

    Source: arXiv 2203.14465. Difference: one step for each generation in place of rounds over the whole data set from
    the first weights, and both kinds are drawn at once, in place of hints for what has failed.
    """
    right = reward() | weigh_right_and_wrong(1.0, 0.0) | rationalise_failures() | leave_out_zeros()
    return Objective(on_span("sampled", right), log_likelihood(), mean_per_token(), proposal=proposal)
