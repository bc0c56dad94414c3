"""EPO: an entropy bonus, and entropy held within a band around its history."""

from qredit.core.objective import Objective
from qredit.objectives._method import method
from qredit.objectives.dapo import dapo
from qredit.penalties.entropy import entropy_bonus
from qredit.penalties.smoothing import entropy_smoothing


@method("penalty", "arXiv 2509.22576", "paper", example="low=0.8, high=1.2, height=0.1, decay=1.0")
def epo(
    low: float,
    high: float,
    height: float,
    decay: float,
    strength: float = 0.001,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    dual_clip: float | None = 3.0,
) -> Objective:
    """GRPO's advantage with a token mean, less strength · (mean H - β · the mean distance of H from its band).

        loss = policy - strength · [ mean H - β · height · mean( relu(low·H̄ - H) + relu(H - high·H̄) ) ]

    Args:
        low, high, height, decay: see `entropy_smoothing`. The released configurations use bands of 0.8 to 1.2 and 0.5
            to 1.5, for their own form of the penalty.
        strength: of both entropy terms.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. verl takes 3.

    Zero, but for the entropy terms, where all rewards of a group are equal. Source: arXiv 2509.22576, the paper's text.
    Difference: see `entropy_smoothing`.
    """
    smoothing = entropy_smoothing(strength, low, high, height, decay)
    return dapo(epsilon_low, epsilon_high, dual_clip=dual_clip) | entropy_bonus(strength) | smoothing
