"""Candidates of each step behind one prefix, of which one is gone on from: the samplers of SLATE and VPR."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from qredit.environments.branching.protocol import Branch, Decision, PlayedEpisode
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class candidates:
    """Each turn is drawn `k` times behind one prefix; the episode goes on from one of them, the others end there.

        p_j ∝ exp(A_j / temperature),   A_j = (r_j - mean r) / (std r + 1e-6) over the k candidates, std with k-1

    r is the reward that the environment gave for the turn, 0 where it gave none. Where all are equal, all have one
    probability. When the episode that went on is over, candidates are drawn at the prompt again, until the group is
    full. A candidate that is not gone on from ends as `pruned`; those that fill the group are all played to their
    ends. What a candidate shares is context, so each turn is learned from once.

    Args:
        k: candidates of a turn.
        temperature: of the choice; 0 takes the first of the best.

    Raises:
        QreditError: k below 2, a temperature below 0.

    Source: arXiv 2602.23440 and its official code (k = 5, 0.7), arXiv 2605.10325 (k = 4, the best). Difference: the
    rollouts of a prompt are a fixed number, in which as many steps are compared as fit. There each step of an
    episode is.

    With a temperature the one that is gone on from is not drawn from the policy, but from what it drew, tilted towards
    reward. Comparing siblings alone, as `slate` and `vpr(pool='sibling')` do, is not biased by it: behind each prefix
    the candidates are the policy's own.
    """

    trains_prefix: ClassVar[bool] = False
    k: int = 5
    temperature: float = 0.7

    def __post_init__(self) -> None:
        check_count("candidates: k", self.k, 2)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise QreditError(f"candidates: temperature must be at least 0, got {self.temperature}")

    def check_size(self, size: int) -> None:
        """Refuse groups of fewer rollouts than candidates."""
        if size < self.k:
            raise QreditError(f"{self} draws {self.k} candidates, and m, the rollouts per prompt, is {size}")

    def count_roots(self, size: int) -> int:
        """The candidates of the first turn."""
        return self.k

    def decide(self, group: Sequence[PlayedEpisode], free: int, rng: Random) -> Decision:
        """Go on from one of the turns that were played just now.

        Args:
            group: the episodes, in the order in which they were begun.
            free: how many more there may be.
            rng: all that is drawn is drawn from it.
        """
        drawn = [place for place, one in enumerate(group) if one.new and not one.failed]
        if not drawn:
            return Decision((Branch(0, 0),) * min(self.k, free))
        rewards = [0.0 if math.isnan(r := group[place].turns[-1].reward) else r for place in drawn]
        (chosen,) = rng.choices(drawn, compute_odds(rewards, self.temperature))
        pruned = frozenset(place for place in drawn if place != chosen and not group[place].ended)
        if group[chosen].ended:
            return Decision((Branch(chosen, 0),) * min(self.k, free), pruned)
        return Decision((Branch(chosen, len(group[chosen].turns)),) * min(self.k - 1, free), pruned)


def compute_odds(rewards: Sequence[float], temperature: float) -> list[float]:
    """∝ exp(A_j / temperature), the largest 1, for A the rewards standardised; all 1 where rewards are equal.

    Args:
        rewards: of the candidates.
        temperature: 0 gives the first of the best 1, and the others 0.
    """
    best = max(rewards)
    if temperature == 0:
        return [float(place == rewards.index(best)) for place in range(len(rewards))]
    mean = math.fsum(rewards) / len(rewards)
    spread = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / max(len(rewards) - 1, 1))
    return [math.exp((r - best) / (spread + 1e-6) / temperature) for r in rewards]
