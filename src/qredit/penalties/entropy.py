"""The entropy bonus, with a constant strength or one that is adapted to a target."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Cadence, State
from qredit.core.penalty import StatefulPenalty, TokenMeanPenalty
from qredit.stats.masked import apply_mask


class EntropyPenalty(TokenMeanPenalty):
    """A penalty whose term is the entropy H of each sampled token's distribution, in nats."""

    needs = frozenset({"entropy"})

    def term(self, logp: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return batch.require("entropy", str(self))

    def sum_entropy(self, batch: RolloutBatch) -> State:
        """The sum of H over the sampled tokens, and their number."""
        entropy = batch.require("entropy", str(self)).double()
        return {"entropy": float(apply_mask(entropy, batch.drawn_once).sum()), "tokens": float(batch.drawn_once.sum())}


@dataclass(frozen=True)
class entropy_bonus(EntropyPenalty):
    """-strength · mean over sampled tokens of H(p(· | prefix)), H in nats: rewards an open next-token distribution.

    Mean over all sampled tokens of the optimiser step, whatever reduction the policy term uses, as in TRL.
    """

    strength: float

    def weight(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> Float[Tensor, "B T"]:
        return -self.strength * batch.drawn_once.double()


@dataclass(frozen=True)
class adaptive_entropy(StatefulPenalty, EntropyPenalty):
    """-c · mean over sampled tokens of H, with a strength c that is raised while entropy is below a target.

    After each generation of rollouts, however many optimiser steps it serves, with mean entropy e (nats, over all
    sampled tokens of these steps):

        c ← clip(c + step, least, most) if e < target, clip(c - step, least, most) otherwise,

    and the bonus on the next generation acts only if e < target. The first generation has c = start.

    Args:
        target: nats; the entropy that is to be kept.
        step, least, most: how far c moves at a time, and its bounds.
        start: c before the first move.

    Source: arXiv 2505.22312 (Skywork-OR1); the rule and the defaults are those of its official code and scripts.
    Difference: the code estimates e by -log p of the sampled tokens under the policy that sampled them; here it is the
    whole distribution's entropy as each step finds it.
    """

    target: float = 0.2
    step: float = 1e-4
    least: float = 0.0
    most: float = 0.005
    start: float = 0.0
    cadence = Cadence.GENERATION

    def init(self) -> State:
        return {"strength": self.start, "active": 1}

    def statistics(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch) -> State:
        return self.sum_entropy(batch)

    def update(self, state: State, statistics: State) -> State:
        if statistics["tokens"] == 0:
            return state
        below = statistics["entropy"] / statistics["tokens"] < self.target
        moved = state["strength"] + (self.step if below else -self.step)
        return {"strength": min(max(moved, self.least), self.most), "active": int(below)}

    def weight_from(self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch, state: State) -> Float[Tensor, "B T"]:
        strength = float(state["strength"]) if state["active"] else 0.0
        return -strength * batch.drawn_once.double()
