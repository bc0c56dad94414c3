"""RFT: supervised fine-tuning on one's own right rollouts."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import log_likelihood
from qredit.credit.counts import weigh_right_and_wrong
from qredit.credit.filters import leave_out_zeros
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2308.01825", "notes")
def rft() -> Objective:
    """Rejection-sampling fine-tuning: the mean log-likelihood of the right rollouts' tokens, rationale and answer.

        loss = -(1/Σ_{i right}|o_i|) Σ_{i right} Σ_t log p(o_it)

    What was sampled is a data set to it: rollouts of older weights count as they are, without a ratio. `psr()` is the
    same under a clipped ratio. Zero on wrong rollouts, and in a step without a right one. Raises QreditError for
    rewards other than 0 and 1.

    Source: arXiv 2308.01825 (RFT). STaR (2203.14465) and ReST-EM (2312.06585) alternate the same two steps. Difference:
    one step for each generation in place of rounds over the whole data set from the first weights. Right rollouts that
    repeat each other are not dropped.
    """
    right = reward() | weigh_right_and_wrong(1.0, 0.0) | leave_out_zeros()
    return Objective(on_span("sampled", right), log_likelihood(), mean_per_token())
