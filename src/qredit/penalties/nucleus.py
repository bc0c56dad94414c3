"""The entropy of a distribution's nucleus, held near an anchor at the tokens where it is highest."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Cadence, Scope, State
from qredit.core.penalty import StatefulPenalty
from qredit.core.schedule import check_range
from qredit.stats.masked import row_mean, row_quantile


def in_nucleus(ordered: Float[Tensor, "*N V"], mass: float) -> Bool[Tensor, "*N V"]:
    """Of probabilities in falling order, those whose running sum stays below `mass`."""
    return ordered.cumsum(-1) < mass


def nucleus_entropy(logits: Float[Tensor, "*N V"], mass: float) -> Float[Tensor, "*N"]:
    """H of the softmax renormalised over its most probable tokens whose probabilities sum to less than `mass`; nats.

    The token that reaches `mass` is left out, and a token that alone holds that much leaves nothing: then it is 0.
    Differentiable through the probabilities; which tokens belong is a constant.

    Source: the reading of SIREN's official code (arXiv 2509.25133). The usual nucleus keeps the crossing token.
    """
    ordered = logits.log_softmax(-1).sort(-1, descending=True).values
    inside = in_nucleus(ordered.exp(), mass)
    inside = torch.where(inside.any(-1, keepdim=True), inside, torch.arange(ordered.shape[-1]).to(ordered) == 0)
    log_share = torch.where(inside, ordered, -torch.inf).log_softmax(-1)
    return -torch.where(inside, log_share.exp() * torch.where(inside, log_share, 0.0), 0.0).sum(-1)


@dataclass(frozen=True)
class nucleus_entropy_anchor(StatefulPenalty):
    """strength · (H_sel - anchor)², H_sel the mean nucleus entropy of the tokens where it peaks.

        H_sel = mean_i ( Σ_t s_it H_it / Σ_t s_it ),   s_it = sampled and H_it > quantile of row i's sampled H

    H is `nucleus_entropy` in nats; a row with nothing above its quantile counts as 0 in the mean over rows. As a loss
    that is no sum over tokens it is stated by slopes: H_it has weight 2·strength·(H_sel - anchor)·s_it/Σ_t s_it, the
    denominator is the number of rollouts, and the number logged is Σ weight · H / rollouts, not the squared distance.

    Args:
        strength: 0.005 in the authors' script.
        mass: probability of the nucleus; the field read is `nucleus_entropy@{mass}`.
        level: of the quantile.
        anchor: nats; None takes H_sel of the whole first generation under the initial policy, before the first step. A
            step on all of that generation finds the penalty at 0, a step on a part of it does not.

    Source: arXiv 2509.25133 (SIREN), official code. Difference: the code selects padding too where it exceeds the
    quantile, and looks at the 10,000 most probable tokens alone; H_sel runs over the step, not a micro-batch.
    """

    strength: float = 0.005
    mass: float = 0.8
    level: float = 0.8
    anchor: float | None = None
    scope = Scope.BATCH
    cadence = Cadence.BEFORE

    def __post_init__(self) -> None:
        check_range("mass", self.mass, 0.0, 1.0)
        check_range("level", self.level, 0.0, 1.0)

    @property
    def field(self) -> str:
        """The batch field read."""
        return f"nucleus_entropy@{self.mass:g}"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.field})

    def init(self) -> State:
        return {"anchor": 0.0, "steps": 0}

    def statistics(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> State:
        entropy, peaks = self._peaks(batch)
        return {"sum": float(row_mean(entropy, peaks).sum()), "rows": float(batch.rollouts)}

    def update(self, state: State, statistics: State) -> State:
        if state["steps"] or not statistics["rows"]:
            return state
        return {"anchor": statistics["sum"] / statistics["rows"], "steps": 1}

    def settled(self, state: State) -> bool:
        return self.anchor is not None or bool(state["steps"])

    def weight_from(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch, state: State) -> Float[Tensor, "B T"]:
        entropy, peaks = self._peaks(batch)
        selected = row_mean(entropy, peaks).sum() / max(batch.rollouts, 1)
        known = state["anchor"] if state["steps"] else selected
        anchor = known if self.anchor is None else self.anchor
        return 2 * self.strength * (selected - anchor) * peaks / peaks.sum(1, keepdim=True).clamp(min=1)

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return batch.require(self.field, str(self))

    def denominator(self, batch: RolloutBatch, coefficient: Float[Tensor, "B T"] | None = None) -> float:
        return float(batch.rollouts)

    def _peaks(self, batch: RolloutBatch) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        entropy = batch.require(self.field, str(self)).double()
        return entropy, batch.drawn_once & (entropy > row_quantile(entropy, batch.drawn_once, self.level))
