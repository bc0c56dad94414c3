"""The geometric mean of the answer's token probabilities as the reward."""

from qredit.core.chain import per_span
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio
from qredit.core.objective import Objective
from qredit.core.surrogate import log_likelihood
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.log_likelihood import answer_geometric_mean, supervised_answer, weigh_by_ratio
from qredit.objectives._method import method


@method("likelihood", "arXiv 2506.18254", "code")
def geometric_mean(
    pathwise: bool = False, epsilon_std: float = 1e-4, ratio: RationaleRatio = DEFAULT_RATIO
) -> Objective:
    """The likelihood per token as the reward, standardised in its group: long answers do not underflow.

    Per prompt, with w_m = p(y* | x, z_m) and |y*| tokens in the answer:

        r_m = w_m^{1/|y*|},   c_m = (r_m - mean_g r) / (std_g r + epsilon_std),   a = 1 with pathwise, else 0

    with c_m on the rationale and a on the gold answer. As in GRPO, the division by the std makes hopeless groups as
    loud as hopeful ones, so that what is climbed is no expectation of r.

    Args:
        pathwise: train the answer's tokens, too.
        epsilon_std: added to the standard deviation (n-1).
        ratio: how the importance ratio ρ of an off-policy rationale is truncated. It multiplies c_m and a.

    Zero in rows without a gold answer, on forced closing tokens and outside both spans. The rationale's part is zero
    where all rewards of a group are equal.

    Source: the reward `exp_mean_log_softmax` of the official code of RLPR (arXiv 2506.18254), OpenBMB/RLPR at 8490fca,
    `verl/workers/reward_manager/prob.py`. Difference: RLPR trains every sampled token under a clipped ratio and takes
    off a base without a rationale, here the rationale is trained. Pathwise and the off-policy form are ours.
    """
    advantage = answer_geometric_mean() | center_by_group() | scale_by_group_std(epsilon_std) | weigh_by_ratio(ratio)
    if not pathwise:
        return Objective(per_span(rationale=advantage), log_likelihood())
    answer = supervised_answer() | weigh_by_ratio(ratio)
    return Objective(per_span(rationale=advantage, answer=answer), log_likelihood())
