"""The log-probability of the gold answer as the reward, as in LaTRO."""

import math

from qredit.core.chain import per_span
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio
from qredit.core.objective import Objective
from qredit.core.schedule import check_range
from qredit.core.surrogate import log_likelihood
from qredit.credit.group import subtract_mean_of_others
from qredit.credit.log_likelihood import (
    answer_log_likelihood,
    subtract_reference_log_ratio,
    supervised_answer,
    weigh_by_ratio,
)
from qredit.objectives._method import method


@method("likelihood", "arXiv 2411.04282", "code")
def logprob(beta: float = 0.0, sft: float = 1.0, ratio: RationaleRatio = DEFAULT_RATIO) -> Objective:
    """REINFORCE with log p(y*|x,z) as the reward: a gradient where every likelihood underflows, and no commitment q.

    Per prompt, with w_m = p(y* | x, z_m):

        r_m = log w_m - beta·[log p(z_m|x) - log p_ref(z_m|x)]
        ĝ = -(1/M) Σ_m [ (r_m - mean of the others' r) ∇log p(z_m|x) + sft ∇log p(y*|x,z_m) ]

    At beta = 0 and sft = 1 its mean is -∇E[log w], for every M. By Jensen's inequality E[log w] ≤ log P: it climbs a
    lower bound of what q = 1 climbs, one that asks every rationale to lead to the answer and not only the likely ones.
    beta > 0 climbs E[log w] - beta·KL(p(z|x) ‖ p_ref).

    Args:
        beta: strength of the KL divergence from the model at the start of the run, in the reward. LaTRO's runs: 0.05.
        sft: weight of the answer's tokens, at least 0. 1 is the gradient of the bound. LaTRO's code has 0 by default.
        ratio: how the importance ratio ρ of an off-policy rationale is truncated.

    Off policy, where z was drawn from μ, ρ_m = p_θ(z_m|x)/μ(z_m|x) multiplies both coefficients of row m, and takes the
    place of a ratio per token. Unbiased where nothing is truncated.

    Zero in rows without a gold answer, in rows whose w is exactly 0 (they are left out of their group), on forced
    closing tokens and outside both spans. The rationale's part is zero where all r of a group are equal. A row alone
    in its group has no baseline. Raises QreditError for beta or sft below 0.

    Source: arXiv 2411.04282 (LaTRO). Compared with the official code, SalesforceAIResearch/LaTRO at ff18ac3:
    `LaTRO/trainer/latro_trainer.py`. The case of one rollout is JEPO's of one sample (arXiv 2503.19618). Difference: a
    rationale that was cut off keeps its own reward, there it gets twice the batch's mean reward. The off-policy form
    is ours.
    """
    check_range("beta", beta, 0.0, math.inf)
    check_range("sft", sft, 0.0, math.inf)
    answered = answer_log_likelihood()
    rewarded = answered | subtract_reference_log_ratio(beta) if beta else answered
    rationale = rewarded | subtract_mean_of_others() | weigh_by_ratio(ratio)
    if not sft:
        return Objective(per_span(rationale=rationale), log_likelihood())
    answer = supervised_answer() if sft == 1.0 else sft * supervised_answer()
    return Objective(per_span(rationale=rationale, answer=answer | weigh_by_ratio(ratio)), log_likelihood())
