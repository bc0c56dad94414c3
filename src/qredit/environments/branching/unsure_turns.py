"""Branches where an observation made the policy unsure: ARPO's sampler."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from qredit.environments.branching.protocol import Branch, Decision, PlayedEpisode
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class unsure_turns:
    """Behind an observation the turn is drawn `copies` times more, the likelier the surer the policy was before.

        branch where u - weight · (H_k - H_0) ≤ probability,   u uniform on [0, 1]

    H_k is the mean surprisal -log p, in nats, of the first `tokens` sampled tokens of turn k: an estimate of the mean
    entropy there from what was drawn. H_0 is that of the episode's first turn.

    Args:
        share: of a group's rollouts that begin at the prompt.
        copies: further episodes of a branching.
        probability: of branching where the policy is as sure as in its first turn.
        weight: by how much each nat changes it.
        tokens: of a turn that are looked at.

    Raises:
        QreditError: a share outside (0, 1], a probability outside [0, 1], a weight that is not finite, or a whole
            number below 1.

    What stays free when all episodes are over is begun at the prompt.

    Source: arXiv 2507.19849 and its official code (half of 16 rollouts, one copy, probability 0.5). Differences: it
    sums the entropies of the ten likeliest tokens over the first 20 positions, over ln V, with a weight of 0.2, so that
    short calls look certain. Here it is the mean, and 0.34 a nat is its weight where 20 tokens were drawn of a
    vocabulary of 150,000. There what stays free is drawn from the prompt, too.

    Whether a turn branches depends on what it drew, but its copies are drawn anew: as in `trees`, a branch is not
    distributed as a rollout of its own, for unsure prefixes come more often.
    """

    trains_prefix: ClassVar[bool] = True
    share: float = 0.5
    copies: int = 1
    probability: float = 0.5
    weight: float = 0.34
    tokens: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise QreditError(f"unsure_turns: share must lie in (0, 1], got {self.share}")
        if not 0 <= self.probability <= 1:
            raise QreditError(f"unsure_turns: probability must lie between 0 and 1, got {self.probability}")
        if not math.isfinite(self.weight):
            raise QreditError(f"unsure_turns: weight must be a finite number, got {self.weight}")
        for name in ("copies", "tokens"):
            check_count(f"unsure_turns: {name}", getattr(self, name), 1)

    def check_size(self, size: int) -> None:
        """Every size can be filled."""

    def count_roots(self, size: int) -> int:
        """Their share, one at least."""
        return max(1, int(self.share * size))

    def decide(self, group: Sequence[PlayedEpisode], free: int, rng: Random) -> Decision:
        """Copies of the turns that were played just now.

        Args:
            group: the episodes, in the order in which they were begun.
            free: how many more there may be.
            rng: all that is drawn is drawn from it.
        """
        branches: list[Branch] = []
        for place, one in enumerate(group):
            turn = len(one.turns) - 1
            if not one.new or one.failed or turn < 1:
                continue
            rise = self._unsureness(one, turn) - self._unsureness(one, 0)
            if min(rng.random() - self.weight * rise, 1.0) <= self.probability:  # at probability 1 always
                branches += [Branch(place, turn)] * self.copies
        return Decision(tuple(branches[:free]))

    def _unsureness(self, one: PlayedEpisode, turn: int) -> float:
        drawn = one.turns[turn].surprisals[: self.tokens]
        return math.fsum(drawn) / len(drawn) if drawn else 0.0
