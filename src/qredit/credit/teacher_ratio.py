"""What a teacher thinks of each sampled token, beside what the policy thinks, as that token's own reward."""

import math
from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.field_names import LOGP_PREFIX
from qredit.core.schedule import check_range
from qredit.stats.masked import apply_mask


@dataclass(frozen=True)
class teacher_log_ratio(Source):
    """c_t = log p_T(o_t) - log p(o_t) on every sampled token: the token's part of the reverse KL, negated.

    On policy the mean of c_t given what stands before token t is -KL(p ‖ p_T) of that token, and the mean of
    c_t ∇log p(o_t) is -∇ of that divergence at a fixed prefix. What the token does to later ones is not counted.

    Of two rows that share a rationale that of the gold answer is kept out.

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
        return Coefficient(torch.where(batch.sampled, told - own, 0.0), keep=batch.drawn_rows[:, None])


@dataclass(frozen=True)
class subtract_centred_log_ratio(Credit):
    """c_i ← c_i - strength · (D_i - mean_j D_j),   D_i = Σ_t [log p(o_t) - log p_T(o_t)] over sampled tokens.

    A divergence from a teacher as part of the reward, less its mean over the step's rows that count: its gradient is
    that of KL(p ‖ p_T) on whole rollouts, times 1 - 1/N for N rows, because each row is part of its own baseline.

    Args:
        strength: per nat, at least 0.
        teacher: by the name that the run knows it by.

    Source: arXiv 2501.11651 (T1), known from others' notes: centred by the mean of the batch. Whether D is a sum or a
    mean over tokens they do not tell; the sum is the divergence of rollouts.
    """

    strength: float
    teacher: str
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, math.inf)

    @property
    def needs(self) -> frozenset[str]:
        """The policy's and the teacher's log-probabilities."""
        return frozenset({"logp", f"{LOGP_PREFIX}{self.teacher}"})

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        told, own = (batch.require(name, str(self)).double() for name in (f"{LOGP_PREFIX}{self.teacher}", "logp"))
        drift = apply_mask(own - told, batch.sampled).sum(1)
        mean = torch.where(keep, drift, 0.0).sum() / keep.sum().clamp(min=1)
        return coefficient.with_row(value - self.strength * (drift - mean))
