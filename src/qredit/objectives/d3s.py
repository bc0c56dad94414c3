"""D3S: dynamic dual-level down-sampling."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.schedule import Schedule
from qredit.core.surrogate import clipped_ratio
from qredit.credit.down_sample import keep_top_weighted_entropy, keep_widest_of_batch, keep_widest_of_group
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2509.22115", "notes", example="of_group=2, of_batch=linear(8, 4), tokens=0.5")
def d3s(
    of_group: int,
    of_batch: float | Schedule,
    tokens: float | Schedule,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
) -> Objective:
    """GRPO's advantage on the rollouts that differ most and on their tokens of largest |A| · H.

    Advantages are normalised over the whole group. Then each group keeps the rollouts whose advantages vary most, the
    step keeps those that vary most among these, and of their tokens those with the largest |A_i| · H_t.

    Zero on rollouts and tokens left out, and where all rewards of a group are equal.

    Args:
        of_group: rollouts kept of each group.
        of_batch: rollouts kept of the optimiser step. `linear(N0, N1)` is the source's schedule.
        tokens: share of the kept rollouts' tokens that learn, 0 … 1. `linear(K0, K1)`.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2509.22115, from others' notes, in which no number is told. Difference: equal advantages are ordered
    by mean entropy. Rollouts left out leave the denominator, tokens left out stay in it. Clip and reduction are DAPO's.
    """
    advantage = reward() | center_by_group() | scale_by_group_std()
    fewer = advantage | keep_widest_of_group(of_group) | keep_widest_of_batch(of_batch)
    chosen = on_span("sampled", fewer | keep_top_weighted_entropy(tokens))
    return Objective(chosen, clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
