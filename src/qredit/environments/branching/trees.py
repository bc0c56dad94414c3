"""Trees that grow from nodes drawn at random: Tree-GRPO's sampler."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from qredit.environments.branching.protocol import Branch, Decision, PlayedEpisode
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class trees:
    """Whole episodes first, then in each round `nodes` branches of each tree, at nodes drawn uniformly, with return.

    A node is what stands before a turn of some episode of the tree: the prompt, and each observation that was answered.
    A group has roots · (1 + rounds · nodes) rollouts.

    Args:
        roots: trees of a group.
        nodes: branches of a tree in a round.
        rounds: how often all trees grow.

    Raises:
        QreditError: an argument that is no whole number of at least 1.

    Source: arXiv 2509.21240 and its official code (2 trees, 2 nodes, 1 round). Difference: no leaf is dropped, while
    there K leaves of a tree are kept at random. With 1 + rounds · nodes = K, as there, none is.

    Which nodes there are to draw from depends on how long episodes turned out, so a branch is not distributed as a
    rollout of its own: longer episodes come more often. The estimator of that paper does not correct it.
    """

    trains_prefix: ClassVar[bool] = True
    roots: int = 2
    nodes: int = 2
    rounds: int = 1

    def __post_init__(self) -> None:
        for name in ("roots", "nodes", "rounds"):
            check_count(f"trees: {name}", getattr(self, name), 1)

    def check_size(self, size: int) -> None:
        """Refuse every size but the one that the trees have together."""
        wanted = self.roots * (1 + self.rounds * self.nodes)
        if size != wanted:
            raise QreditError(
                f"{self} makes {wanted} rollouts of a prompt, roots · (1 + rounds · nodes), and m, the rollouts per "
                f"prompt, is {size}"
            )

    def count_roots(self, size: int) -> int:
        """One for each tree."""
        return self.roots

    def decide(self, group: Sequence[PlayedEpisode], free: int, rng: Random) -> Decision:
        """A round of branches, when all episodes are over.

        Args:
            group: the episodes, in the order in which they were begun.
            free: how many more there may be.
            rng: all that is drawn is drawn from it.
        """
        if not all(one.ended for one in group):
            return Decision()
        return Decision(
            tuple(
                branch for tree in range(self.roots) for branch in rng.choices(_list_nodes(group, tree), k=self.nodes)
            )
        )


def _list_nodes(group: Sequence[PlayedEpisode], tree: int) -> list[Branch]:
    """The prompt, and what stands before every later turn that was played in the tree, each once."""
    own = [(place, one) for place, one in enumerate(group) if one.tree == tree]
    root = Branch(own[0][0], 0)
    # What stands before the first own turn of a branch is the node that it was drawn at.
    later = [Branch(place, turn) for place, one in own for turn in range(one.branch + 1, len(one.turns))]
    return [root, *later]
