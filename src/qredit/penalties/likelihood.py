"""The likelihood of good rollouts kept from falling: three gates of one penalty."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope
from qredit.core.penalty import Penalty
from qredit.penalties.covariance import log_ratio
from qredit.stats.masked import apply_mask
from qredit.stats.segment import Segments
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class _KeepLikelihood(Penalty):
    """What the gates share.

    (strength / |Y|) Σ_{i in Y} (1/|o_i|) Σ_t gate_it β_it relu(Δ_it),   Δ = log p_sampler - log p of a sampled token

    with Y the rows that have sampled tokens on which the mean coefficient is not negative.
    """

    strength: float = 0.2
    searches: int | None = None
    scope = Scope.BATCH
    counts_coefficients = True

    def __post_init__(self) -> None:
        if self.searches is not None and self.searches < 1:
            raise QreditError(f"searches must be at least 1 (or None for answers in full), got {self.searches}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"logp"} if self.searches is None else {"logp", "turn", "response"})

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        lost = -log_ratio(batch.require("logp", str(self)).double(), batch)
        counted = batch.drawn_once & _is_good(coefficient, batch)[:, None] & self.gate(lost, batch)
        length = batch.drawn_once.sum(1, keepdim=True).clamp(min=1)
        return self.strength * counted * self._answer_factor(batch) / length

    @abstractmethod
    def gate(self, lost: Float[Tensor, "B T"], batch: RolloutBatch) -> Bool[Tensor, "B #T"]:
        """Tokens that may pay, given the log-likelihood that each has lost (0 outside the sampled tokens)."""

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return (-log_ratio(logp, batch)).relu()

    def denominator(self, batch: RolloutBatch, coefficient: Float[Tensor, "B T"] | None = None) -> float:
        return 0.0 if coefficient is None else float(_is_good(coefficient, batch).sum())

    def _answer_factor(self, batch: RolloutBatch) -> Float[Tensor, "B T"]:
        factor = torch.ones(batch.mask.shape, dtype=torch.float64, device=batch.mask.device)
        if self.searches is None:
            return factor
        turns = Segments.of(batch.require("turn", str(self)), batch.drawn_once)
        earned = ((turns.exists.sum(1) - 1).double() / self.searches).clamp(0, 1)
        return torch.where(batch.require("response", str(self)), earned[:, None], factor)


@dataclass(frozen=True)
class keep_likelihood(_KeepLikelihood):
    """strength · mean over good rollouts of their tokens' mean loss of log-likelihood, in turns that lost on the whole.

        (strength / |Y|) Σ_{i in Y} (1/|o_i|) Σ_turn 1[Σ_turn Δ > 0] Σ_{t in turn} β_t relu(Δ_t)

    Δ_t = log p_sampler - log p of a sampled token, Y the rows that have sampled tokens on which the mean coefficient is
    not negative. The gate is a constant; the gradient flows through Δ. Zero, with slope 0, while the
    parameters are those that sampled: it acts from the second update on a batch, or with an older sampler.

    Args:
        searches: β is min((turns - 1) / searches, 1) on the answer (`response`) and 1 elsewhere, so that answers
            without searches before them are not held; 2 in the paper. None holds every answer in full.

    Source: arXiv 2512.04220 (LLDS, LLDS-MA), the paper's text. Difference: the released code averages over all tokens
    of a micro-batch, and takes runs of unmasked tokens for turns.
    """

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"turn"}

    def gate(self, lost: Float[Tensor, "B T"], batch: RolloutBatch) -> Bool[Tensor, "B #T"]:
        turns = Segments.of(batch.require("turn", str(self)), batch.drawn_once)
        return turns.spread(turns.total(lost)) > 0


@dataclass(frozen=True)
class keep_likelihood_of_tokens(_KeepLikelihood):
    """`keep_likelihood` without a gate: every token of a good rollout that lost likelihood pays, whatever its turn did.

    Source: arXiv 2512.04220, the token-level variant, the weakest there.
    """

    def gate(self, lost: Float[Tensor, "B T"], batch: RolloutBatch) -> Bool[Tensor, "B #T"]:
        return lost > 0


@dataclass(frozen=True)
class keep_likelihood_of_responses(_KeepLikelihood):
    """`keep_likelihood` with one gate for a rollout: its tokens pay only if its log-likelihood fell on the whole.

    Source: arXiv 2512.04220, the response-level variant.
    """

    def gate(self, lost: Float[Tensor, "B T"], batch: RolloutBatch) -> Bool[Tensor, "B #T"]:
        return lost.sum(1, keepdim=True) > 0


def _is_good(coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Bool[Tensor, " B"]:
    """Scored rows that have sampled tokens, on which the mean coefficient is not negative."""
    unscored = torch.zeros_like(batch.has_answer) if batch.reward is None else batch.reward.isnan() & ~batch.has_answer
    return batch.drawn_once.any(1) & (apply_mask(coefficient.double(), batch.drawn_once).sum(1) >= 0) & ~unscored
