"""Claims of the penalty family."""

from qredit.chain import on_span
from qredit.credit.reward import reward
from qredit.lab.laws import StageSubject, Subject
from qredit.objective import Objective
from qredit.objectives import rloo
from qredit.penalty.entropy import entropy_bonus


def _entropy_bonus(logp, batch):
    """rloo's loss less strength · the mean entropy of all sampled tokens."""
    return rloo().loss(logp, batch) - 0.1 * batch.entropy[batch.sampled].mean()


BATTERY: tuple[Subject, ...] = (
    Subject(rloo() | entropy_bonus(0.1), loss=_entropy_bonus),
    Subject(Objective(on_span("sampled", reward()), penalties=(entropy_bonus(0.1),))),
)
STAGES: tuple[StageSubject, ...] = ()
