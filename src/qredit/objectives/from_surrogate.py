"""Any function of the success rate as the objective."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.counts import climb
from qredit.credit.goal import Goal
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2510.23049", "own", example="0.5 * arcsine() + success_std()")
def from_surrogate(goal: Goal) -> Objective:
    """Advantages that climb F(p), the surrogate reward of a prompt's success rate p.

        ω(p) = p(1-p) F'(p),   A⁺ = ω(p̂)/p̂,   A⁻ = -ω(p̂)/(1-p̂),   p̂ = mean_g r

    Up to a factor of the group's size, success() is RLOO and arcsine() GRPO. log_success() is MaxRL, pass_at(k) the
    plug-in of pass@k. Goals add and scale: `0.5 * arcsine() + success_std()` is GRPO times (1 - p̂), which moves
    weight to hard prompts. Zero in groups of equal rewards. Raises QreditError for rewards other than 0 and 1.

    Args:
        goal: an object with a method slope(p) → F'(p). `imported_slope('package.module.name')` for a function F'.

    Source: arXiv 2510.23049, the surrogate view. The list of F's is derived here.
    """
    return Objective(on_span("sampled", reward() | climb(goal)))
