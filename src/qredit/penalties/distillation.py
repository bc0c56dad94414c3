"""Distillation on the policy's own samples: divergences from a teacher over the whole vocabulary."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope, State
from qredit.core.field_names import FORWARD_KL_PREFIX, HELLINGER_PREFIX, KL_PREFIX, TEMPERED_KL_PREFIX
from qredit.core.penalty import StatefulPenalty, TokenMeanPenalty
from qredit.core.schedule import check_range
from qredit.stats.masked import mean, select_top
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class _VocabularyKl(TokenMeanPenalty):
    strength: float
    teacher: str

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.field})

    @property
    def field(self) -> str:
        """The batch field that is averaged."""
        raise NotImplementedError

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return self.strength * batch.drawn_once.double()

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return batch.require(self.field, str(self))


@dataclass(frozen=True)
class reverse_kl(_VocabularyKl):
    """strength · mean over sampled tokens of KL(policy ‖ teacher) = Σ_v p_v (log p_v - log t_v), in nats.

    Over the whole vocabulary, at the prefixes that the policy drew. It seeks a mode: the policy is drawn away from what
    the teacher would not write. Zero, with slope 0, where the two agree. The gradient is exact at each prefix and
    leaves out what a token does to later ones: it is not that of the divergence of whole sequences.

    `kl_to_reference_k2(strength, teacher=NAME)` has this gradient in the mean from log-probabilities of the sampled
    tokens alone, which any teacher tells. Its value is biased: (log p - log t)² / 2. It is also biased once rollouts
    are older than the policy.

    Args:
        strength: what the divergence is multiplied by.
        teacher: by the name that the run knows it by.

    Source: on-policy distillation, arXiv 2306.13649 (GKD), its reverse KL on the student's own samples.
    """

    @property
    def field(self) -> str:
        return f"{KL_PREFIX}{self.teacher}"


@dataclass(frozen=True)
class forward_kl(_VocabularyKl):
    """strength · mean over sampled tokens of KL(teacher ‖ policy) = Σ_v t_v (log t_v - log p_v), in nats.

    Over the whole vocabulary, at the prefixes that the policy drew. It covers modes: the policy is drawn to all that
    the teacher would write. Zero, with slope 0, where the two agree. As in `reverse_kl` what a token does to later
    ones is left out; prefixes that only the teacher would write are never seen.

    `kl_to_reference(strength, teacher=NAME)` has this gradient in the mean from log-probabilities of the sampled tokens
    alone, which any teacher tells: the slope of its k3 in log p is 1 - t/p. Its value is an unbiased estimate of the
    other direction, KL(policy ‖ teacher). Its variance is that of t/p, large where the policy hardly writes what the
    teacher would.

    Args:
        strength: what the divergence is multiplied by.
        teacher: by the name that the run knows it by.

    Source: arXiv 2306.13649 (GKD), its forward KL on the student's own samples.
    """

    @property
    def field(self) -> str:
        return f"{FORWARD_KL_PREFIX}{self.teacher}"


@dataclass(frozen=True)
class adaptive_kl(StatefulPenalty, TokenMeanPenalty):
    """strength · mean over the kept sampled tokens of T_t² · KL(policy ‖ teacher) at the temperature T_t (AdaKD).

        kept: the max(1, ⌊share · N⌋) sampled tokens of the step that lie farthest from the teacher, s largest
        T_t = exp(-hardness · tanh(log(s_t / median s))),   s the Hellinger distance of the two distributions

    Far tokens are learned from at a temperature below 1. The share falls while the loss falls and rises while it rises:
    with e the moving average of the divergence (decay) and m its last mark, set at the end of the warm-up,

        e > (1 + tolerance) m: share ← min(share (1 + move), 1), m ← e
        e < (1 - tolerance) m: share ← max(share (1 - move), least), m ← e

    Zero, with slope 0, where the two agree. Temperatures and the choice of tokens are constants.

    Args:
        strength: what the divergence is multiplied by.
        teacher: by the name that the run knows it by.
        warmup: optimiser steps in which every token is kept; a twentieth of the run in the authors' script.
        hardness: of the temperatures; 0 leaves all of them at 1.
        move: by which part of itself the share moves; least: below which it does not fall.
        tolerance: by which part of the mark e must move.
        decay: of the moving average.

    Source: arXiv 2510.11615 (AdaKD), official code. Differences: the median runs over the tokens of a row and not over
    the kept ones of a micro-batch, so that the loss does not depend on how rows are split; the average e follows the
    divergence of all sampled tokens, not that of the kept ones; no gradient flows through T. The median of distances
    that are all 0, which divides by 0 there, leaves T at 1.
    """

    strength: float
    teacher: str
    warmup: int
    hardness: float = 0.5
    move: float = 0.05
    tolerance: float = 0.05
    least: float = 0.1
    decay: float = 0.99
    scope = Scope.BATCH

    def __post_init__(self) -> None:
        for name in ("move", "tolerance", "least", "decay"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        if self.hardness < 0:
            raise QreditError(f"hardness must be 0 or more, got {self.hardness!r}")
        if self.warmup < 0:
            raise QreditError(f"warmup must be a number of steps, 0 or more, got {self.warmup!r}")

    @property
    def field(self) -> str:
        """The batch field that is averaged."""
        return f"{TEMPERED_KL_PREFIX}{self.teacher}@{self.hardness:g}"

    @property
    def distance(self) -> str:
        """The batch field that tokens are chosen by."""
        return f"{HELLINGER_PREFIX}{self.teacher}"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.field, self.distance})

    def init(self) -> State:
        return {"share": 1.0, "steps": 0, "average": 0.0, "mark": 0.0}

    def statistics(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> State:
        far = batch.require(self.field, str(self)).double()
        tokens = float(batch.drawn_once.sum())
        return {"sum": float(mean(far, batch.drawn_once)) * tokens, "tokens": tokens}

    def update(self, state: State, statistics: State) -> State:
        if not statistics["tokens"]:
            return state
        now, steps = statistics["sum"] / statistics["tokens"], state["steps"] + 1
        average = self.decay * state["average"] + (1 - self.decay) * now if state["steps"] else now
        moved = {**state, "steps": steps, "average": average}
        if steps <= self.warmup or not state["mark"]:
            return {**moved, "mark": average if steps > self.warmup else 0.0}
        if average > (1 + self.tolerance) * state["mark"]:
            return {**moved, "mark": average, "share": min(state["share"] * (1 + self.move), 1.0)}
        if average < (1 - self.tolerance) * state["mark"]:
            return {**moved, "mark": average, "share": max(state["share"] * (1 - self.move), self.least)}
        return moved

    def weight_from(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch, state: State) -> Float[Tensor, "B T"]:
        kept = self._kept(batch, float(state["share"])).double()
        return self.strength * kept * (batch.drawn_once.sum() / kept.sum().clamp(min=1))

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return batch.require(self.field, str(self))

    def _kept(self, batch: RolloutBatch, share: float) -> Bool[Tensor, "B T"]:
        distance = batch.require(self.distance, str(self)).double()
        return select_top(distance, batch.drawn_once, max(int(share * int(batch.drawn_once.sum()) + 1e-9), 1))
