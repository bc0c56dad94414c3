"""CANON: a group split by a metric, each half judged against the other."""

from qredit.core.chain import Source, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import sum_per_length
from qredit.core.schedule import Schedule
from qredit.core.surrogate import clipped_ratio
from qredit.credit.halves import center_by_halves
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2509.23962", "code", example="length=64, metric=mean_entropy()")
def canon(
    length: int,
    metric: Source,
    between: float | Schedule | Source = 1.0,
    low: float = 1.0,
    high: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    dual_clip: float | None = 3.0,
) -> Objective:
    """Amplify what a metric does to the reward, without saying which direction is good.

        A_i = μ (r_i - mean of the other half) + (1-μ) (r_i - mean of the own half),
        loss = -(1/(N·length)) Σ_i Σ_t min(ρ A_i, clip(ρ) A_i)

    Args:
        length: the constant that token sums are divided by. The source uses the generation budget, 8192.
        metric: what the group is sorted by: mean_entropy() or sampled_length(), or any source of a number per rollout.
        between: μ. 1 compares halves, 0 compares within them, ½ with halves of one size is Dr.GRPO. The source's
            schedules state 1-μ: batch_mean_reward() compares within first and between later.
            cosine_restarts(total, start=0.4, end=1, before=1) and (total, start=1, end=0.4, before=0) are its two
            cosine ones.
        low, high: factors on the rewards of the halves where they are compared: α ≤ 1 on the low-entropy half, or on
            the long half.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. verl takes 3.

    Zero where all rewards of a group of two or more are equal and low = high = 1. A rollout alone keeps its reward.

    Source: arXiv 2509.23962, the authors' code. As there, the entropies are those of the policy that sampled.
    """
    advantage = reward() | center_by_halves(metric, between, low, high)
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, sum_per_length(length))
