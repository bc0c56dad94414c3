"""Clip-Cov: a few tokens of large covariance left out at random."""

from qredit.core.objective import Objective
from qredit.credit.covariance import drop_covariance_band
from qredit.objectives._method import method
from qredit.objectives.dapo import dapo


@method("penalty", "arXiv 2505.22617", "code")
def clip_cov(
    share: float = 2e-4, low: float = 1.0, high: float = 5.0, epsilon_low: float = 1.0, epsilon_high: float = 1.0
) -> Objective:
    """GRPO's advantage with a token mean, where a share of the tokens that drive entropy down is drawn and set to 0.

        C_it = (A_i - mean A)(log p_it - mean log p);   max(1, ⌊share·N⌋) tokens with low < C_it < high lose A_i

    Args:
        share, low, high: see `drop_covariance_band`.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region. The authors' scripts take 1, nearly no clip.

    Zero where all rewards of a group are equal. Source: arXiv 2505.22617, official code. Difference: statistics over
    the step, not a micro-batch.
    """
    return dapo(epsilon_low, epsilon_high, dual_clip=None) | drop_covariance_band(
        share, low, high, epsilon_low, epsilon_high
    )
