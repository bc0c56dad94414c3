"""Which tokens move the likelihood of the group's right rollouts, and in which direction."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.schedule import check_range
from qredit.credit.token_gradient import NEEDS, TokenGradients
from qredit.credit.token_weight import scale_tokens, select_tokens
from qredit.stats.masked import row_mean


@dataclass(frozen=True)
class _Influence(Credit):
    """What both influences share: scores against the right rollouts, a threshold, and groups that have both kinds.

    A rollout is right if its reward exceeds ½. The score of a token is eᵀ M h, M the sum of the head gradients of the
    right rollouts' tokens; the threshold of a group is `strictness` · the least mean score of a right rollout.
    """

    strictness: float
    needs = NEEDS | {"reward"}
    scope = Scope.GROUP

    def __post_init__(self) -> None:
        check_range("strictness", self.strictness, 0.0, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        counts = select_tokens(coefficient, batch)
        rows = counts.any(1)
        right = rows & (batch.require("reward", str(self)) > 0.5)
        share = batch.groups.mean(right.double(), rows)
        score = self._scores(batch, counts, right)
        factor = self.factor(score, self._threshold(batch, score, counts, right), right, share)
        return scale_tokens(coefficient, factor, counts & ((share > 0) & (share < 1))[:, None])

    @abstractmethod
    def row_weight(self, counts: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
        """The weight of each right rollout's tokens in M."""

    @abstractmethod
    def factor(
        self,
        score: Float[Tensor, "B T"],
        threshold: Float[Tensor, "B 1"],
        right: Bool[Tensor, " B"],
        share: Float[Tensor, " B"],
    ) -> Float[Tensor, "B T"]:
        """What each token's coefficient is multiplied by, `share` being that of right rollouts in the group."""

    def _scores(
        self, batch: RolloutBatch, counts: Bool[Tensor, "B T"], right: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B T"]:
        score = torch.zeros(counts.shape, dtype=torch.float64, device=counts.device)
        weight = torch.where(right, self.row_weight(counts), 0.0)[:, None].expand(counts.shape)
        for number in batch.groups.index[right].unique():
            own = counts & (batch.groups.index == number)[:, None]
            tokens = TokenGradients.of(batch, own, str(self))
            score[own] = tokens.inner(tokens.bank(weight[own]))
        return score

    def _threshold(
        self, batch: RolloutBatch, score: Float[Tensor, "B T"], counts: Bool[Tensor, "B T"], right: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B 1"]:
        means = torch.where(right, row_mean(score, counts), torch.inf)
        least = batch.groups.rows(batch.groups.dense(means, torch.inf).amin(1, keepdim=True))
        return self.strictness * least[:, None]


@dataclass(frozen=True)
class tilt_by_influence(_Influence):
    """c_t ← 1[|THR_t| > τ] · (1 + tilt · sign THR_t) · c_t, THR_t = ± eᵀ M h, + in right rollouts and - in wrong ones.

        M = Σ over right rollouts of (1/|y|) Σ over their tokens of e hᵀ,   τ = strictness · least mean score of one

    THR is how far a token's own update raises the likelihood of the group's right rollouts. tilt > 0 strengthens what
    raises it (exploit), tilt < 0 what lowers it (explore), 0 keeps the dominant tokens as they are. Groups without a
    right or without a wrong rollout, and tokens that were not sampled, keep c.

    Source: arXiv 2510.03669, known from others' notes. Difference: e and h are those of the current policy, as they
    are when an update is made; the source fixes the mask for all updates on the same rollouts.
    """

    strictness: float = 1.0
    tilt: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("tilt", self.tilt, -1.0, 1.0)

    def row_weight(self, counts: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
        return 1.0 / counts.sum(1).clamp(min=1).double()

    def factor(
        self,
        score: Float[Tensor, "B T"],
        threshold: Float[Tensor, "B 1"],
        right: Bool[Tensor, " B"],
        share: Float[Tensor, " B"],
    ) -> Float[Tensor, "B T"]:
        influence = torch.where(right[:, None], score, -score)
        return torch.where(influence.abs() > threshold, 1 + self.tilt * influence.sign(), 0.0)


@dataclass(frozen=True)
class soften_by_influence(_Influence):
    """c_t ← η · c_t on the tokens of wrong rollouts whose score eᵀ M h exceeds τ; the others keep c.

        η = 2|p̂ - ½|, or `kept` where it is given
        M = Σ over right rollouts and their tokens of e hᵀ,   τ = strictness · least mean score of a right rollout

    Such tokens resemble the right rollouts: pushing them down would push the right ones down. p̂ is the share of right
    rollouts in the group. Groups without a right or without a wrong rollout keep c.

    Source: arXiv 2505.18830, known from others' notes. Difference: as in `tilt_by_influence`.
    """

    strictness: float = 1.0
    kept: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kept is not None:
            check_range("kept", self.kept, 0.0, 1.0)

    def row_weight(self, counts: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
        return torch.ones(len(counts), dtype=torch.float64, device=counts.device)

    def factor(
        self,
        score: Float[Tensor, "B T"],
        threshold: Float[Tensor, "B 1"],
        right: Bool[Tensor, " B"],
        share: Float[Tensor, " B"],
    ) -> Float[Tensor, "B T"]:
        alike = ~right[:, None] & (score > threshold)
        softened = 2 * (share - 0.5).abs() if self.kept is None else torch.full_like(share, self.kept)
        return torch.where(alike, softened[:, None], 1.0)
