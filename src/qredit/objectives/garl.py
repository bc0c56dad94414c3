"""GARL: gradient-amplified reinforcement learning."""

from qredit.core.chain import Source, per_span, tempered
from qredit.core.hint import hint
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio, weigh_proposal
from qredit.core.objective import Objective
from qredit.core.schedule import Schedule
from qredit.core.surrogate import log_likelihood
from qredit.credit.likelihood import (
    amplified_likelihood,
    subtract_likelihood_baseline,
    subtract_mixture_baseline,
)
from qredit.objectives._method import method


@method("likelihood", "arXiv 2604.25907", "paper", example="q=0.75")
def garl(
    q: float | Schedule,
    normalize: bool = True,
    pathwise: bool = True,
    ratio: RationaleRatio = DEFAULT_RATIO,
    proposal: hint | None = None,
    temper: float = 1.0,
) -> Objective:
    """Amplify the RL gradient of the answer's likelihood by the group's own w̄^{-q}: learns where every reward is zero.

    Per prompt, with w_m = p(y* | x, z_m), w̄ their mean, w̄_¬m the mean of the others:

        ĝ = (1/M^q)(1/M) Σ_m [ -c_m ∇log p(z_m|x) - a_m ∇log p(y*|x,z_m) ],   a_m = w_m / w̄^q,   c_m = a_m -
        w̄_¬m^{1-q}

    so the coefficient is c_m/M^q on sampled rationale tokens and a_m/M^q on the gold answer's tokens, under the average
    over rows. Expectation: ∇ℓ_q/M^q up to a bias of order q/M where M·P ≫ 1 (0 at q = 0 for every M), where no
    rationale ended early by an end-of-text: that decision is not scored.

    Args:
        q: commitment, 0 (RLVR, as `verifree`) … 1 (log marginal likelihood, the IWAE gradient). May be a schedule,
            or `auto()`: left to the run (docs/guidance.md).
        normalize: keep the factor 1/M^q, which bounds a_m/M^q by 1. A rescaled learning rate otherwise.
        pathwise: False gives the answer's tokens no gradient: the ablation that the paper leaves open.
        ratio: how the importance ratio ρ of an off-policy rationale is truncated.
        proposal: draw a share of each group's rationales from the policy shown the gold answer, `hint(share=0.5)`; for
            prompts on which no q helps at this M. A share of 0 is the estimator without proposals.
        temper: τ, above 0 and at most 1: w^τ in place of w, and τ·a_m on the answer. Another objective, ours.

    With τ < 1 what is climbed is log_q of E[w^τ] and no longer of P = E[w]. It keeps coefficients above underflow where
    the answer is long, and gives rationales weight that hardly lead to it. For τ → 0 at q = 0 it is `logprob()`, times
    τ.

    Off policy, where z was drawn from μ, ρ_m = p_θ(z_m|x)/μ(z_m|x) goes with every w_m and with the baseline:

        w̄ = mean of ρw,   a_m = ρ_m w_m / w̄^q,   c_m = a_m - ρ_m w̄_¬m^{1-q}

    It takes the place of a ratio per token. Unbiased at q = 0 where nothing is truncated.

    With a proposal r(z|x,y*), λ = k/M of the rows, all rows are scored and trained behind the plain prompt, and

        u_m = p(z_m|x) / [(1-λ) p(z_m|x) + λ r(z_m|x,y*)],   w̄ = mean of uw
        a_m = u_m w_m / w̄^q,   c_m = a_m - u_m b_m

    with b_m of `subtract_mixture_baseline`, which changes no expectation for fixed k ≥ 2, M-k ≥ 2. Off policy u_m =
    p_θ/[(1-λ) μ + λ r], both of the time of sampling. Over long rationales p/r of hinted rows is tiny and the proposal
    is wasted: `proposal/weight_share` and `proposal/ess` in the logs show it.

    Zero in rows without a gold answer, in groups whose every w is 0, on forced closing tokens and outside both spans.
    Raises QreditError for q outside [0, 1] and for temper outside (0, 1].

    Source: arXiv 2604.25907 (the GARL estimator). Differences: the off-policy form, proposals and `temper`, which are
    ours.
    """
    weight = weigh_proposal(ratio, proposal)
    subtract_baseline = subtract_likelihood_baseline if weight is ratio else subtract_mixture_baseline
    amplified = amplified_likelihood(q, normalize, weight)
    rationale: Source = amplified | subtract_baseline(q, normalize, weight)
    answer: Source = amplified
    if temper != 1.0:
        rationale, answer = tempered(temper, rationale), temper * tempered(temper, answer)
    credit = per_span(rationale=rationale, answer=answer) if pathwise else per_span(rationale=rationale)
    return Objective(credit, log_likelihood(), proposal=proposal)
