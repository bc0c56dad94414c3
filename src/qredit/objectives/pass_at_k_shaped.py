"""Pass@k training by shaped advantages."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.counts import shape_pass_at
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2508.10751", "code", example="k=4")
def pass_at_k_shaped(
    k: int, epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-6
) -> Objective:
    """GRPO over all sets of k rollouts of a group, whose reward is the best of the set, and each rollout has the mean.

        A⁺ = f / (σ + epsilon_std),   A⁻ = (f - C(wrong-1, k-1)/C(M-1, k-1)) / (σ + epsilon_std),   σ = √(f(1-f))

    f = C(wrong, k)/C(M, k). The population objective is (2/k)·arcsin√(1 - (1-p)^k). Zero in groups without a success
    and in groups with fewer than k failures: it stops long before a prompt is always solved. Raises QreditError for
    rewards other than 0 and 1.

    Source: arXiv 2508.10751, the advantage of the official code. Difference: the loss around it is a clipped ratio with
    one mean over all tokens.

    Args:
        k: rollouts of a set.
        epsilon_low: the ratio is clipped below 1 - epsilon_low.
        epsilon_high: the ratio is clipped above 1 + epsilon_high.
        epsilon_std: added to the standard deviation that divides.
    """
    advantage = reward() | shape_pass_at(k, epsilon_std)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
