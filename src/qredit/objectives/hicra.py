"""HICRA: hierarchy-aware credit assignment."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group
from qredit.credit.planning import amplify_planning
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2509.03646", "notes")
def hicra(strength: float = 0.2, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """The centred reward, raised on planning tokens by a part of its size.

        A_t = A_i + strength · |A_i| on planning tokens, A_i elsewhere,   A_i = r_i - mean_g r

    Wins count (1 + strength)-fold there, losses (1 - strength)-fold. Zero where all rewards of a group are equal.

    Args:
        strength: 0.2 in third-party code, second-hand. The paper's own number is not known to us.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    `planning` is made by `--field 'planning=planning_grams()'` or `planning_phrases()`.

    Source: arXiv 2509.03646, from others' notes. A version by its authors marks tokens by the highest 30 % of entropy
    in place of planning n-grams. Difference: clip and reduction are GRPO's, for want of a source. The strategic n-grams
    are found among token ids alone (`qredit.rollouts.ngrams`), without clusters of their meaning.
    """
    advantage = reward() | center_by_group() | amplify_planning(strength)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
