"""TEA-RL: an entropy bonus on tokens of large covariance."""

from qredit.core.objective import Objective
from qredit.objectives._method import method
from qredit.objectives.dapo import dapo
from qredit.penalties.covariance import covariance_entropy_bonus
from qredit.penalties.reference import kl_to_reference


@method("penalty", "arXiv 2508.03178", "code")
def tea_rl(
    scale: float = 10.0,
    most: float = 5.0,
    kl: float = 0.001,
    epsilon_low: float = 1.0,
    epsilon_high: float = 1.0,
    dual_clip: float | None = 10.0,
) -> Objective:
    """GRPO's advantage with a token mean, a wide clip, and an entropy bonus weighted by covariance.

        loss = policy - mean(w · H) + kl · KL,   w = clip(scale · softmax_t C, 0, most),   C as in `kl_covariance`

    Args:
        scale, most: see `covariance_entropy_bonus`.
        kl: strength of the divergence from a reference model. 0 needs none.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.
        dual_clip: the loss of A_i < 0 is capped at -dual_clip · A_i, None for no cap. Its recipe takes 10.

    Zero, but for bonus and divergence, where all rewards of a group are equal. Source: arXiv 2508.03178 (Light-IF),
    official code, whose branch for it does not run as released. Difference: w is a constant.
    """
    policy = dapo(epsilon_low, epsilon_high, dual_clip=dual_clip) | covariance_entropy_bonus(scale, most)
    return policy | kl_to_reference(kl) if kl else policy
