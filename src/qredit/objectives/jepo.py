"""JEPO: the multi-sample Jensen bound of the gold answer's likelihood."""

from qredit.core.chain import per_span
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio
from qredit.core.objective import Objective
from qredit.core.surrogate import log_likelihood
from qredit.credit.likelihood import amplified_likelihood
from qredit.credit.log_likelihood import log_mean_gain
from qredit.objectives._method import method


@method("likelihood", "arXiv 2503.19618", "notes")
def jepo(floor: float = 100.0, ratio: RationaleRatio = DEFAULT_RATIO) -> Objective:
    """Climb E[log w̄], the bound of log P that M rationales give: each is credited with what it adds to log w̄.

    Per prompt, with w_m = p(y* | x, z_m), w̄ their mean, w̄_¬m the mean of the others:

        ĝ = -(1/M) Σ_m [ c_m ∇log p(z_m|x) + a_m ∇log p(y*|x,z_m) ],   c_m = M·(log w̄ - log w̄_¬m),   a_m = w_m / w̄

    Its mean is -∇E[log w̄] at every M ≥ 2, with the expectation over the group's M rationales. E[log w̄] lies below
    log P and rises to it with M: in the limit this is `garl(1)`. `garl(1)` at finite M differs in c alone, w_m/w̄ - 1.

    Args:
        floor: nats that log w̄_¬m may lie below log w_m. It binds where the others have w = 0 or nearly so, and bounds
            c_m by M·floor.
        ratio: how the importance ratio ρ of an off-policy rationale is truncated.

    A row alone in its group has c = 0 and a = 1: nothing to compare it with.

    Off policy, where z was drawn from μ, ρ_m = p_θ(z_m|x)/μ(z_m|x), w̄_¬m is the others' mean of ρw and w̄ that of all:

        c_m = ρ_m·M·log[(w_m/w̄_¬m + M - 1)/M],   a_m = ρ_m w_m / w̄

    It takes the place of a ratio per token. The limit for large M is that of on-policy rollouts. The exact form at
    finite M would weigh a row by the ratios of its whole group.

    Zero in rows without a gold answer, in groups whose every w is 0, on forced closing tokens and outside both spans.
    The rationale's part is zero where all w of a group are equal. Raises QreditError for floor outside [0, 700].

    Source: arXiv 2503.19618 for the bound. No official code was found, and the leave-one-out form is derived here and
    checked against the enumerated gradient. The floor and the off-policy form are ours.
    """
    gained, share = log_mean_gain(floor, ratio), amplified_likelihood(1.0, normalize=False, ratio=ratio)
    return Objective(per_span(rationale=gained, answer=share), log_likelihood())
