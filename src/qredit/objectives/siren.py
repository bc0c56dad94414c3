"""SIREN: selective entropy regularisation around an anchor."""

from qredit.core.objective import Objective
from qredit.objectives._method import method
from qredit.objectives.dr_grpo import dr_grpo
from qredit.penalties.nucleus import nucleus_entropy_anchor


@method("penalty", "arXiv 2509.25133", "code", example="length=64")
def siren(
    length: int,
    strength: float = 0.005,
    mass: float = 0.8,
    level: float = 0.8,
    anchor: float | None = None,
    epsilon_low: float = 0.28,
    epsilon_high: float = 0.28,
    dual_clip: float | None = 3.0,
) -> Objective:
    """Dr.GRPO, with the nucleus entropy of each row's most uncertain tokens held near its value at the start.

        loss = Dr.GRPO + strength · (mean_i mean_{t selected} H_it - anchor)²

    Args:
        length: Dr.GRPO's constant.
        strength, mass, level, anchor: see `nucleus_entropy_anchor`.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. verl takes 3.

    Zero, but for the entropy term, where all rewards of a group are equal. That term is 0 at the anchor.

    Source: arXiv 2509.25133, official code. Difference: see `nucleus_entropy_anchor`.
    """
    return dr_grpo(length, epsilon_low, epsilon_high, dual_clip) | nucleus_entropy_anchor(strength, mass, level, anchor)
