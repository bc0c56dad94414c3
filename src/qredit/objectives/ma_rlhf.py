"""MA-RLHF: PPO's advantage over macro actions."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.macro import macro_advantage
from qredit.credit.per_token import at_last_token
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("step", "arXiv 2410.02743", "code")
def ma_rlhf(
    discount: float = 1.0, trace_decay: float = 0.95, epsilon_low: float = 0.2, epsilon_high: float = 0.2
) -> Objective:
    """The reward arrives at the last token, and advantages are estimated between runs of tokens and shared inside each.

        R_τ, V_τ = means over macro τ,   δ_τ = R_τ + γ V_{τ+1} - V_τ,   A_{i,t} = A_τ = δ_τ + γ λ A_{τ+1}

    Ratio and clip stay per token. `value` is a critic's, by `--field 'value=critic()'`, and `macro` numbers the runs,
    by `--field 'macro=macros_by_length(5)'`, `macros_by_punctuation()` or `macros_by_perplexity()`. Zero on tokens of
    no macro.

    Args:
        discount, trace_decay: γ and λ, per macro.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2410.02743, the authors' code. Difference: rows have boundaries of their own, there those of the
    first row. No empty macro before the last token where (L-1) % n = 0. No KL term in the reward and no clip of it at
    ±2.5. The critic is a linear head.
    """
    advantage = reward() | at_last_token() | macro_advantage(discount, trace_decay)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
