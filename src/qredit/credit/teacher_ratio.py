"""What a teacher thinks of each sampled token, beside what the policy thinks, as that token's own reward."""

from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Source
from qredit.core.field_names import LOGP_PREFIX


@dataclass(frozen=True)
class teacher_log_ratio(Source):
    """c_t = log p_T(o_t) - log p(o_t) on every sampled token: the token's part of the reverse KL, negated.

    On policy the mean of c_t given what stands before token t is -KL(p ‖ p_T) of that token, and the mean of
    c_t ∇log p(o_t) is -∇ of that divergence at a fixed prefix. What the token does to later ones is not counted.

    Args:
        teacher: by the name that the run knows it by.
    """

    teacher: str

    @property
    def needs(self) -> frozenset[str]:
        """The policy's and the teacher's log-probabilities."""
        return frozenset({"logp", f"{LOGP_PREFIX}{self.teacher}"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        told, own = (batch.require(name, str(self)).double() for name in (f"{LOGP_PREFIX}{self.teacher}", "logp"))
        return Coefficient(torch.where(batch.sampled, told - own, 0.0))
