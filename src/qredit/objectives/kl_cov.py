"""KL-Cov: tokens of large covariance held near the policy that sampled them."""

from dataclasses import replace

from qredit.core.objective import Objective
from qredit.core.surrogate import plain_ratio
from qredit.objectives._method import method
from qredit.objectives.dapo import dapo
from qredit.penalties.covariance import kl_covariance


@method("penalty", "arXiv 2505.22617", "code")
def kl_cov(strength: float = 1.0, share: float = 2e-4) -> Objective:
    """GRPO's advantage, a token mean, no clip, and tokens that drive entropy down most are held near the sampler.

        loss = (1/N) Σ_it [ -ρ_it A_i + strength · 1[C_it among the max(1, ⌊share·N⌋) largest] · |log ρ_it| ]

    Args:
        strength, share: see `kl_covariance`. `share` is a fraction, not the percentage of the authors' scripts: 2e-4 is
            that of their 32B model, 2e-3 that of their 7B one.

    On the policy that sampled it is the plain policy gradient. Zero where all rewards of a group are equal, but for the
    penalty. Source: arXiv 2505.22617, official code. Difference: statistics over the step, not a micro-batch.
    """
    return replace(dapo(), surrogate=plain_ratio()) | kl_covariance(strength, share)
