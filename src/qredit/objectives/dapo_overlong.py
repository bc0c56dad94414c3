"""DAPO with its soft overlong punishment."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.length import subtract_overlong
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("reward", "arXiv 2503.14476", "code", example="length=64, buffer=16")
def dapo_overlong(
    length: int,
    buffer: int,
    strength: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.28,
    epsilon_std: float = 1e-4,
    dual_clip: float | None = 3.0,
) -> Objective:
    """DAPO's loss on the reward less a punishment that grows over the last `buffer` tokens before `length`.

        r_i ← r_i - strength · clip((|o_i| - (length - buffer)) / buffer, 0, 1)

    Args:
        length, buffer: in sampled tokens. `length` is the most a rollout may have.
        strength: the punishment at full length.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).
        dual_clip: as in `dapo`.

    Zero where all rewards so made are equal. Source: arXiv 2503.14476, eq. 13. Difference: no dynamic sampling.
    """
    made = reward() | subtract_overlong(length, buffer, strength)
    advantage = made | center_by_group() | scale_by_group_std(epsilon_std)
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token())
