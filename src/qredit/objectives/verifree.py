"""VeriFree: reinforcement learning with the answer's likelihood as the reward."""

from qredit.core.objective import Objective
from qredit.objectives._method import method
from qredit.objectives.garl import garl


@method("likelihood", "arXiv 2505.21493", "paper")
def verifree() -> Objective:
    """The likelihood of the gold answer is the reward, with a leave-one-out baseline: GARL at q = 0.

    Coefficient w_m - w̄_¬m on rationale tokens, w_m on answer tokens: the Rao-Blackwellised REINFORCE gradient of P,
    unbiased for every M, where no rationale ended early by an end-of-text: that decision is not scored.

    Source: arXiv 2505.21493 (VeriFree), as the q = 0 end of arXiv 2604.25907. Difference from VeriFree's code: the
    answer is appended as ids, at temperature 1, and the group's scale is left alone.
    """
    return garl(q=0.0)
