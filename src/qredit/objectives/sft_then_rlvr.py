"""SFT-then-RLVR as a schedule over q."""

from qredit.core.objective import Objective
from qredit.core.schedule import check_range, steps
from qredit.objectives._method import method
from qredit.objectives.garl import garl


@method("likelihood", "arXiv 2604.25907", "paper")
def sft_then_rlvr(switch: float = 0.5, normalize: bool = True) -> Objective:
    """GARL at q = 1 (maximum likelihood) until `switch` of the training progress, then at q = 0 (RLVR).

    The usual two-stage recipe is this stepwise schedule on the J_Q continuum. `garl(q=linear(1, 0))` is the smooth one.

    Source: arXiv 2604.25907 v2, which reads the usual pipeline as this schedule. Difference: the supervised phase of
    the paper's runs learns from annotated rationales, this one from answers alone.
    """
    check_range("switch", switch, 0.0, 1.0)
    return garl(q=steps((1.0, 0.0), (switch,)), normalize=normalize)
