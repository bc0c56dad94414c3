"""PAFT: posterior-attenuated fine-tuning."""

from qredit.core.chain import per_span, tempered
from qredit.core.hint import hint
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio, weigh_proposal
from qredit.core.objective import Objective
from qredit.core.schedule import Schedule
from qredit.core.surrogate import log_likelihood
from qredit.credit.likelihood import attenuated_likelihood, resample_by_likelihood
from qredit.objectives._method import method


@method("likelihood", "arXiv 2604.25907", "paper", example="q=0.75")
def paft(
    q: float | Schedule,
    resamples: int | None = None,
    normalize: bool = True,
    ratio: RationaleRatio = DEFAULT_RATIO,
    proposal: hint | None = None,
    temper: float = 1.0,
) -> Objective:
    """Fine-tune on rationales drawn from the posterior p(z | x, y*), attenuated by w̄^{1-q}.

    K indices r_k are drawn with probability w_m / Σw, with replacement, and the group does supervised fine-tuning on
    rationale and answer together:

        ĝ = -(w̄^{1-q}/M^q)(1/K) Σ_k ∇log p(z_{r_k}, y* | x)

    so the coefficient is (w̄^{1-q}/M^q)·n_m·M/K on rationale and answer alike, n_m = how often row m was drawn, under
    the average over rows. Its mean over the draws is a_m/M^q: GARL without a baseline.

    Args:
        q: 0 … 1. q = 1 is the E-step of EM (TRICE). A low q is over-conservative when cold. May be a schedule.
        resamples: K. None is M, as in the paper.
        normalize: keep the factor 1/M^q.
        ratio: how the importance ratio ρ of an off-policy rationale is truncated.
        proposal: draw a share of each group's rationales from the policy shown the gold answer, as in `garl`.
        temper: τ, above 0 and at most 1: w^τ in place of w, and τ times the coefficient on the answer. Another
            objective, as in `garl`.

    Off policy rows are drawn with probability ρ_m w_m / Σρw and w̄ is the mean of ρw, ρ_m = p_θ(z_m|x)/μ(z_m|x). No
    token carries a further ratio. With a proposal they are drawn with probability u_m w_m / Σuw and w̄ is the mean of
    uw, with GARL's weight u_m of the mixture. All rows are scored and trained behind the plain prompt.

    Zero in rows never drawn (they need no backward pass), in rows without a gold answer, in groups whose every w is 0,
    on forced closing tokens and outside both spans. Raises QreditError for q outside [0, 1], resamples < 1 or temper
    outside (0, 1].

    Source: arXiv 2604.25907 (the PAFT estimator). Differences: the off-policy form, proposals and `temper`, which are
    ours.
    """
    weight = weigh_proposal(ratio, proposal)
    resampled = attenuated_likelihood(q, normalize, weight) | resample_by_likelihood(resamples, weight)
    rationale, answer = resampled, resampled
    if temper != 1.0:
        rationale, answer = tempered(temper, resampled), temper * tempered(temper, resampled)
    return Objective(per_span(rationale=rationale, answer=answer), log_likelihood(), proposal=proposal)
