"""BRPO: budget-relative policy optimisation, the thinking part of AnytimeReasoner."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import sum_per_length
from qredit.core.surrogate import clipped_ratio
from qredit.credit.budget import budget_advantage
from qredit.objectives._method import method


@method("step", "arXiv 2505.13438", "code", example="prior=(0.25, 0.25, 0.25, 0.25), length=64")
def brpo(prior: tuple[float, ...], length: int, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """Maximise the accuracy of answers given at several thinking budgets, averaged under a prior over budgets.

    The thinking between cut s-1 and cut s gets J_s = Σ_{j≥s} P_j r̄_j less a baseline made of the rollout's own earlier
    cuts and of the group's mean J_s: the formula of `budget_advantage`. No standard deviation. Zero outside the
    rationale and in rows with an unscored budget. `--field 'budget=truncated_answers((…))'` makes all fields, for as
    many budgets as the prior has.

        loss = -(1/(N·length)) Σ_i Σ_t min(ρ A_s, clip(ρ) A_s)

    Args:
        prior: P, one number per budget, Σ = 1: (0.25, 0.25, 0.25, 0.25) is uniform, (0, 0, 0, 1) the full budget.
        length: the constant that token sums are divided by: the response budget.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2505.13438, the authors' code. Difference: the answers sampled after each cut, which the source
    trains by r - mean over the answers of one prefix, are rows of another batch: `reward() | center_by_group()` with a
    group per prefix. The code divides by rows × the width that a batch is padded to, which depends on how it is cut.
    `length` is the same for every step.
    """
    advantage = budget_advantage(prior)
    return Objective(on_span("rationale", advantage), clipped_ratio(epsilon_low, epsilon_high), sum_per_length(length))
