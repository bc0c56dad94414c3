"""Supervised fine-tuning of the answer alone, after sampled rationales: the control of what rationales add."""

from qredit.core.chain import per_span
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio
from qredit.core.objective import Objective
from qredit.core.surrogate import log_likelihood
from qredit.credit.log_likelihood import supervised_answer, weigh_by_ratio
from qredit.objectives._method import method


@method("likelihood", "none: a control", "own")
def sft_answer(ratio: RationaleRatio = DEFAULT_RATIO) -> Objective:
    """Imitate the gold answer behind whatever rationale was sampled, while rationales learn nothing. A control.

        ĝ = -(1/M) Σ_m ∇log p(y*|x,z_m)

    The half of `logprob()` that is on the answer. A method that does no better than this has not shown that its
    rationales help.

    Args:
        ratio: how the importance ratio ρ of an off-policy rationale is truncated. It multiplies the row.

    Zero in rows without a gold answer, in rows whose likelihood is exactly 0, and outside the answer.

    Source: ours, the half of LaTRO (arXiv 2411.04282) on the answer. Supervised fine-tuning without any rationale needs
    no sampling and is not this.
    """
    return Objective(per_span(answer=supervised_answer() | weigh_by_ratio(ratio)), log_likelihood())
