"""LLDS: GRPO that keeps the likelihood of good rollouts from falling."""

from qredit.core.objective import Objective
from qredit.objectives._method import method
from qredit.objectives.dapo import dapo
from qredit.penalties.likelihood import keep_likelihood
from qredit.penalties.reference import kl_to_reference


@method("penalty", "arXiv 2512.04220", "paper")
def llds(
    strength: float = 0.2,
    searches: int | None = None,
    kl: float = 0.001,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Objective:
    """GRPO's advantage with a token mean, and a price on log-likelihood lost in turns of rollouts with A_i ≥ 0.

        loss = policy + (strength/|Y|) Σ_{i in Y} (1/|o_i|) Σ_turn 1[Σ_turn Δ > 0] Σ_{t in turn} relu(Δ_t) + kl · KL

    Args:
        strength, searches: see `keep_likelihood`. searches = 2 is LLDS-MA.
        kl: strength of the divergence from a reference model. 0 needs none.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.

    Zero, but for price and divergence, where all rewards of a group are equal. The price is 0 while the parameters are
    those that sampled. Source: arXiv 2512.04220, the paper's text. The token
    mean of the policy term is that of the released code. Difference: see `keep_likelihood`.
    """
    kept = dapo(epsilon_low, epsilon_high, dual_clip=None) | keep_likelihood(strength, searches)
    return kept | kl_to_reference(kl) if kl else kept
