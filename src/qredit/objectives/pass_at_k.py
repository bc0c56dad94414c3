"""Pass@k as the objective, unbiased."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.counts import credit_pass_at
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("group", "arXiv 2510.23049", "own", example="k=4")
def pass_at_k(k: int) -> Objective:
    """Climb the chance that at least one of k tries is right, 1 - (1-p)^k.

        A_i = k r_i C(wrong, k-1)/C(M-1, k-1) - b_i,   ĝ = -(1/N) Σ_i A_i ∇log p(o_i|x)

    b_i is the mean of the first term over the other rollouts, in a group without rollout i. See `credit_pass_at`. With
    it, and without, E[ĝ] = -k (1-p)^{k-1} ∇p. k = 1 is RLOO. Needs groups of more than k for the baseline, of k for
    anything. Zero in larger groups of equal rewards. Raises QreditError for rewards other than 0 and 1.

    Source: arXiv 2510.23049 (direct optimisation). The unbiased estimator over a group is that of PKPO, arXiv
    2505.15201, eq. 29 and 33, derived here without it. Difference from released code that subtracts the mean of the
    others' first terms: these depend on r_i, which biases it.
    """
    return Objective(on_span("sampled", reward() | credit_pass_at(k)))
