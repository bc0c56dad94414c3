"""Whole rollouts against branches, weighed by a pilot, and few branches in a row: agentic AEPO's sampler."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from qredit.environments.branching.protocol import Branch, Decision, PlayedEpisode
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class balanced_turns:
    """A pilot is played to its end. It says how many rollouts begin at the prompt; unsure turns branch into the others.

        roots = min(m, ⌊m · sigmoid(slope · (H_0 - mean of H_k, k ≥ 1))⌋ + 1),   H of the pilot
        turn k ≥ 1 branches where (base + weight · (H_k - H_0)) · max(0, 1 - penalty · l) > threshold

    H_k is the mean surprisal -log p, in nats, of the first `tokens` sampled tokens of turn k: an estimate of the mean
    entropy there from what was drawn. H_0 is that of the episode's first turn, l the number of turns right before turn
    k that branched, in an unbroken row. The pilot is one of the roots, and branches when it is over. A pilot of one
    turn gives half of the rollouts to roots.

    Args:
        base: what a turn as unsure as the first one has, before the penalty.
        weight: by how much each nat raises it.
        threshold: above it a turn branches.
        slope: how strongly the pilot weighs, per nat.
        penalty: for each turn in the row.
        copies: further episodes of a branching.
        tokens: of a turn that are looked at.

    Raises:
        QreditError: a number that is not finite, a penalty outside [0, 1], or a whole number below 1.

    What stays free when all episodes are over is begun at the prompt.

    Source: arXiv 2510.14545, known from notes, with the rounding and the penalty of a fork of its code. The notes leave
    base, weight and threshold open: choose them. The fork has a draw from [0, 1] as base, 0.2 as weight, 0.5 as
    threshold and 0.5 as slope, for entropies over ln V: with V = 150,000 that is 0.017 and 0.042 a nat. Differences:
    entropies are estimated from drawn tokens, and the pilot is one of the rollouts.

    Whether a turn branches depends on what it drew: as in `trees`, a branch is not distributed as a rollout of its own,
    for unsure prefixes come more often.
    """

    trains_prefix: ClassVar[bool] = True
    base: float
    weight: float
    threshold: float
    slope: float
    penalty: float = 0.05
    copies: int = 1
    tokens: int = 20

    def __post_init__(self) -> None:
        for name in ("base", "weight", "threshold", "slope"):
            if not math.isfinite(getattr(self, name)):
                raise QreditError(f"balanced_turns: {name} must be a finite number, got {getattr(self, name)}")
        if not 0 <= self.penalty <= 1:
            raise QreditError(f"balanced_turns: penalty must lie between 0 and 1, got {self.penalty}")
        for name in ("copies", "tokens"):
            check_count(f"balanced_turns: {name}", getattr(self, name), 1)

    def check_size(self, size: int) -> None:
        """Every size can be filled."""

    def count_roots(self, size: int) -> int:
        """The pilot."""
        return 1

    def decide(self, group: Sequence[PlayedEpisode], free: int, rng: Random) -> Decision:
        """The other roots and the pilot's branches when it is over; then copies of turns that were played just now.

        Args:
            group: the episodes, in the order in which they were begun.
            free: how many more there may be.
            rng: not used: nothing is drawn.
        """
        if len(group) > 1:
            turns = [
                (place, len(one.turns) - 1) for place, one in enumerate(group) if one.new and self._branches_at_end(one)
            ]
            return self._decide([Branch(place, turn) for place, turn in turns], free)
        (pilot,) = group
        if not pilot.ended:
            return Decision()
        roots = [Branch(0, 0)] * (self.weigh(pilot, free + 1) - 1)
        unsure = [] if pilot.failed else self.list_branching(pilot)
        branches = self._decide([Branch(0, turn) for turn in unsure], max(free - len(roots), 0)).branches
        return Decision((*roots, *branches))

    def weigh(self, pilot: PlayedEpisode, size: int) -> int:
        """How many rollouts of a group begin at the prompt.

        Args:
            pilot: as far as it was played.
            size: of the group.
        """
        first, *later = self._list_unsureness(pilot)
        fall = first - math.fsum(later) / len(later) if later else 0.0
        share = (1 + math.tanh(self.slope * fall / 2)) / 2  # the sigmoid, whatever the fall
        return min(size, int(size * share) + 1)

    def list_branching(self, one: PlayedEpisode) -> list[int]:
        """The turns of an episode that branch, by their numbers."""
        return [turn for turn, branches in enumerate(self._iterate_branching(one)) if branches]

    def _branches_at_end(self, one: PlayedEpisode) -> bool:
        return not one.failed and [*self._iterate_branching(one)][-1]

    def _iterate_branching(self, one: PlayedEpisode) -> Iterator[bool]:
        """Whether each turn branches; a function of what was drawn, so that nothing need be kept."""
        first, *later = self._list_unsureness(one)
        row = 0
        yield False  # a first turn has nothing before it
        for own in later:
            found = (self.base + self.weight * (own - first)) * max(0.0, 1 - self.penalty * row) > self.threshold
            row = row + 1 if found else 0
            yield found

    def _list_unsureness(self, one: PlayedEpisode) -> list[float]:
        drawn = [turn.surprisals[: self.tokens] for turn in one.turns] or [()]
        return [math.fsum(own) / len(own) if own else 0.0 for own in drawn]

    def _decide(self, unsure: Sequence[Branch], free: int) -> Decision:
        return Decision(tuple(branch for branch in unsure for _ in range(self.copies))[:free])
