"""RLPR: the mean probability of the gold answer's tokens is the reward."""

from qredit.chain import on_span
from qredit.credit.answer_probability import mean_answer_probability
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.objective import Objective
from qredit.objectives._method import method
from qredit.reduce import mean_per_rollout
from qredit.surrogate import clipped_ratio


@method("reward", "arXiv 2506.18254", "notes")
def rlpr(epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-4) -> Objective:
    """GRPO on sampled rationales, rewarded by how probable each token of the gold answer is after them, on average.

        r_i = (1/|y*|) Σ_t p(y*_t | x, z_i, y*_<t),   A_i = (r_i - mean_g r) / (std_g r + epsilon_std)

    Where VeriFree's reward is the product of these numbers, this is their mean: it hardly depends on the answer's
    length, and it is no probability of anything. The answer's tokens are scored and get no gradient.

    Args:
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).

    Zero outside the rationale, in rows without a gold answer and where all rewards of a group are equal.

    Source: arXiv 2506.18254, known from others' notes. Difference: the answer's probability without a rationale is
    not subtracted, which takes a further forward pass; the mean runs over the seam and the end of the answer too, which
    are nearly certain; no filter of groups by the spread of their rewards; the reward is that of the current parameters
    at each update; a row's loss is divided by its rationale and its gold answer together.
    """
    advantage = mean_answer_probability() | center_by_group() | scale_by_group_std(epsilon_std)
    return Objective(on_span("rationale", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
