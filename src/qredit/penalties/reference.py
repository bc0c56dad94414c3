"""Kullback-Leibler divergence from a reference model, by three estimators of one token's part of it."""

from abc import abstractmethod
from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.field_names import LOGP_PREFIX, REFERENCE
from qredit.core.penalty import TokenMeanPenalty


@dataclass(frozen=True, repr=False)
class TeacherPenalty(TokenMeanPenalty):
    """What penalties share that compare with a teacher; its name is printed where it is not the reference.

    So the text of objectives, by which a run is resumed, is that of versions that knew the reference alone.
    """

    strength: float
    teacher: str = field(default=REFERENCE, kw_only=True)

    def __repr__(self) -> str:
        plain = {"teacher"} if self.teacher == REFERENCE else set()
        given = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name not in plain)
        return f"{type(self).__name__}({', '.join(given)})"


@dataclass(frozen=True, repr=False)
class _ReferencePenalty(TeacherPenalty):
    """What the estimators share: strength · mean over sampled tokens of a function of log reference/policy."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"{LOGP_PREFIX}{self.teacher}"})

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return self.strength * batch.drawn_once.double()

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        gap = batch.require(f"{LOGP_PREFIX}{self.teacher}", str(self)).to(logp.dtype) - logp
        return self.estimate(torch.where(batch.drawn_once, gap, 0.0))

    @abstractmethod
    def estimate(self, gap: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The estimate from gap = log p_reference - log p_policy of the sampled token."""


@dataclass(frozen=True, repr=False)
class kl_to_reference(_ReferencePenalty):
    """strength · mean over sampled tokens of k3 = exp(g) - g - 1, g = log p_reference - log p_policy of the token.

    k3 is never negative, 0 where the two agree, and for tokens drawn from the policy an unbiased estimate of
    KL(policy ‖ reference); its slope in log p is 1 - exp(g), whose mean is the slope of KL(reference ‖ policy).

    Args:
        teacher: who stands for the reference, by the name that the run knows it by: with another model it is
            distillation.

    Source: the estimator of GRPO (arXiv 2402.03300) and of TRL and verl's code ("low_var_kl" there, without its clamp).
    Difference: TRL multiplies it by the importance ratio unless `use_bias_correction_kl` is switched off.
    """

    def estimate(self, gap: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return gap.exp() - gap - 1


@dataclass(frozen=True, repr=False)
class kl_to_reference_k1(_ReferencePenalty):
    """strength · mean over sampled tokens of k1 = log p_policy - log p_reference.

    An unbiased estimate of KL(policy ‖ reference) whose slope in log p is 1 on every token: differentiated like this,
    on-policy, its mean gradient is 0 whatever the reference is. It is a number for logs, or part of a reward.

    Source: the "kl" estimator of verl's code.
    """

    def estimate(self, gap: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return -gap


@dataclass(frozen=True, repr=False)
class kl_to_reference_k2(_ReferencePenalty):
    """strength · mean over sampled tokens of k2 = (log p_policy - log p_reference)² / 2.

    A biased value with the right gradient: on-policy the mean of its slope is that of KL(policy ‖ reference).

    Source: the "mse" estimator of verl's code.
    """

    def estimate(self, gap: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return gap.square() / 2
