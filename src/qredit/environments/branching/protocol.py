"""What decides which episodes of a group branch, and where: rules that see what was played so far and keep no state.

prompt | turn 0 | turn 1 | turn 2      a root: begun at the prompt
                | turn 1 | turn 2      a branch of it at turn 1: it goes on from what stood before that turn
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class PlayedTurn:
    """A turn that was played.

    Attributes:
        surprisals: -log p of each of its sampled tokens in nats, in order.
        reward: of the turn's action; NaN where the environment gave none.
    """

    surprisals: tuple[float, ...]
    reward: float


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode of a group, as far as it was played.

    Attributes:
        turns: in order, those before its branch among them.
        branch: number of the first turn that is its own; 0 for a root.
        tree: number of the root that it comes from.
        new: its last turn was played just now.
        ended: it is over.
        failed: an error of its environment ended it.
    """

    turns: tuple[PlayedTurn, ...]
    branch: int
    tree: int
    new: bool
    ended: bool
    failed: bool = False

    def can_branch(self, turn: int) -> bool:
        """Whether another episode can go on from what stood before this turn."""
        return 0 <= turn < len(self.turns) or (turn == len(self.turns) and not self.ended)


@dataclass(frozen=True)
class Branch:
    """A further episode: it goes as `episode`, by its place in the group, until `turn`, which it draws by itself.

    Its environment has the seed of that one's, so that it comes to where that one was: what it draws later is drawn
    alike, too. At turn 0 it begins at the prompt with a seed of its own, in the tree of that one.
    """

    episode: int
    turn: int


@dataclass(frozen=True)
class Decision:
    """What comes of a group now.

    Attributes:
        branches: further episodes, as many as are free at most.
        pruned: places of episodes that are not played on.
    """

    branches: tuple[Branch, ...] = ()
    pruned: frozenset[int] = frozenset()


class Branching(Protocol):
    """A rule. It is asked after each turn of the group, while the group has fewer rollouts than it is to have.

    Attributes:
        trains_prefix: whether a branch is a rollout from the prompt on. Else what it shares is context: it gets no
            credit, and is in no pool, but in the episode that sampled it.
    """

    @property
    def trains_prefix(self) -> bool: ...

    def check_size(self, size: int) -> None:
        """Refuse groups that the rule cannot fill.

        Raises:
            QreditError: names the rule, the size, and what it may be.
        """
        ...

    def count_roots(self, size: int) -> int:
        """How many of a group's episodes begin at the prompt, one at least."""
        ...

    def decide(self, group: Sequence[PlayedEpisode], free: int, rng: Random) -> Decision:
        """What branches now.

        When nothing is going on any more and no branch is named, the free episodes are begun at the prompt, each the
        root of a tree.

        Args:
            group: the episodes, in the order in which they were begun.
            free: how many more there may be, one at least.
            rng: all that is drawn is drawn from it.
        """
        ...


def check_decision(decision: Decision, group: Sequence[PlayedEpisode], free: int) -> None:
    """Refuse what a rule must not decide.

    Args:
        decision: of the rule.
        group: the episodes that it was shown.
        free: how many more there may be.

    Raises:
        QreditError: more branches than are free, or one where there is nothing to go on from; an episode to prune that
            is over.
    """
    if len(decision.branches) > free:
        raise QreditError(f"a rule of branching named {len(decision.branches)} branches, and {free} are free")
    for branch in decision.branches:
        if not (0 <= branch.episode < len(group) and group[branch.episode].can_branch(branch.turn)):
            raise QreditError(f"a rule of branching named {branch}, which no episode of the group came to")
    for place in sorted(decision.pruned):
        if not 0 <= place < len(group) or group[place].ended:
            raise QreditError(f"a rule of branching pruned episode {place} of {len(group)}, which is not going on")
