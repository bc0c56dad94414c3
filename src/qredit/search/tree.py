"""A tree of the steps of rationales to one prompt: what simulations are worth, and which step is grown next."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Optional

from qredit.checks.protocol import Verdict, score_verdict

DECAY = 0.9
"""What an ancestor gets of a value, for each step that it stands above."""
EXPLORATION = 1.414


@dataclass(eq=False)
class Node:
    """A step behind the steps of its ancestors; the root is the prompt.

    Attributes:
        ids: the tokens of the step.
        text: of the step.
        parent: the step before it; None for the root.
        verdict: what the check said of the step.
        can_grow: further steps may be drawn behind it.
        value: the sum of what was backed up.
        visits: simulations that began below it.
        expanded: simulations began at it, and its children are there.
        children: by the tokens of their steps.
    """

    ids: tuple[int, ...] = ()
    text: str = ""
    parent: Optional["Node"] = None
    verdict: Verdict = None
    can_grow: bool = True
    value: float = 0.0
    visits: int = 0
    expanded: bool = False
    children: dict[tuple[int, ...], "Node"] = field(default_factory=dict)

    @property
    def ancestors(self) -> Iterator["Node"]:
        """Its parent, the parent of that, and so on."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    @property
    def path(self) -> list["Node"]:
        """The steps of its rationale, itself the last; none for the root."""
        return [self, *self.ancestors][-2::-1]

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens of these."""
        return tuple(token for node in self.path for token in node.ids)

    @property
    def is_open(self) -> bool:
        """Whether something can be grown at it or below it."""
        return any(child.is_open for child in self.children.values()) if self.expanded else self.can_grow


def value_simulation(verdicts: Sequence[Verdict], right: bool) -> float:
    """The value of a simulation for the step that it began behind.

        V = Σ_{i=0}^{N-1} (1/N) v_i (N-i)/N + F/max(N, 1)

    v_i is 1 for a right step, -1 for a wrong one and 0 where the check said nothing; F is 1 or -1. Earlier steps count
    more, and the answer the less the more steps were checked.

    Args:
        verdicts: on the N steps between the start and the answer.
        right: whether the answer was right.

    Source: the released code of GroundedPRM (arXiv 2510.14942), `backpropagate`. The paper's own equation was not read.
    Difference: there the last step holds the answer and is not among the N; here the answer stands behind the steps.
    """
    count = max(len(verdicts), 1)
    steps = math.fsum(score_verdict(one) * (count - place) for place, one in enumerate(verdicts))
    return steps / count**2 + (1.0 if right else -1.0) / count


def back_up(start: Node, value: float) -> None:
    """Add a simulation's value to the node it began behind, and 0.9^d of it to the ancestor d steps above.

    Visits count for ancestors alone, as in the released code.

    Args:
        start: the node.
        value: of the simulation.
    """
    start.value += value
    for distance, node in enumerate(start.ancestors, start=1):
        node.value += DECAY**distance * value
        node.visits += 1


def rate_child(child: Node, parent: Node, exploration: float, sign: int) -> float:
    """UCT: sign · value + exploration · sqrt(ln(parent's visits + 1) / (own visits + 1)).

    The value is the sum and not the mean of what was backed up.

    Args:
        child: that is rated.
        parent: of the child.
        exploration: the weight of what was visited little.
        sign: 1 where right rationales are looked for, -1 where wrong ones are.

    Source: the released code of GroundedPRM, `getBestChild`. Its `select` does not call that, and draws a child at
    random; the paper says UCT.
    """
    return sign * child.value + exploration * math.sqrt(math.log(parent.visits + 1) / (child.visits + 1))


def select_leaf(root: Node, exploration: float, sign: int) -> Node:
    """The node to be expanded: from the root on the child of the highest UCT, among those that something can grow at.

    Of equal ones the one that was drawn first.

    Args:
        root: that is open.
        exploration, sign: as in `rate_child`.
    """
    node = root
    while node.expanded:
        children = [child for child in node.children.values() if child.is_open]
        node = max(children, key=lambda child: rate_child(child, node, exploration, sign))
    return node
