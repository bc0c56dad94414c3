"""Rollouts that go on from before a token of high entropy: CURE's first stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar

from qredit.drawing.protocol import DrawingTools, Row, repeat_rows
from qredit.rollouts.collate import split_groups
from qredit.rollouts.trajectory import Role, Segment, Trajectory
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class branch_at_entropy:
    """`first` rollouts of each prompt, and `branches` more behind a beginning of each, cut before an unsure token.

    Of the `top` places of a rationale with the highest entropy, one is drawn uniformly. What stands before it is the
    beginning. The token there is drawn anew, and all behind it. Not the first place, no special token, and no token
    whose text, without spaces around it, has fewer than two characters. Where no place is left, the branches begin at
    the prompt. All first · (1 + branches) rollouts are one group.

    The beginning is context: its tokens are not sampled ones of the branch, and carry no loss there. The rollout that
    drew them learns from them. They count among the tokens of the rationale, so a branch is no longer than a rollout.

    A branch is not distributed as a rollout of its own: its beginning is one whose last place was unsure. Its own
    tokens are the policy's behind that beginning. So group statistics mean something else than over plain rollouts: a
    branch of a good beginning is better for it, and its tokens are credited for that.

    Logged: `drawing/kept`, the mean number of tokens that a branch took over, and `drawing/entropy`, the mean entropy
    in nats at the places that were drawn. It costs a forward pass over the first rollouts, and draws branches apart.

    Args:
        first: rollouts that begin at the prompt.
        branches: of each.
        top: places that one is drawn from.

    Raises:
        QreditError: an argument that is no whole number of at least 1.

    Source: arXiv 2508.11016 (CURE) and its released code (4, 3, 20), first stage; the second is a plain run from its
    checkpoint. Differences: places in the rationale alone, there in the whole response. There a beginning is cut to the
    longest prompt, and what is drawn behind it may be as long as a whole response.
    """

    fills: ClassVar[frozenset[str]] = frozenset()
    independent: ClassVar[bool] = False
    first: int = 4
    branches: int = 3
    top: int = 20

    def __post_init__(self) -> None:
        for name in ("first", "branches", "top"):
            check_count(f"branch_at_entropy: {name}", getattr(self, name), 1)

    def check_size(self, size: int) -> None:
        """Refuse every size but the one that rollouts and branches have together."""
        wanted = self.first * (1 + self.branches)
        if size != wanted:
            raise QreditError(
                f"{self} draws {wanted} rollouts of a prompt, first · (1 + branches), and m, the rollouts per prompt, "
                f"is {size}"
            )

    def check_vocabulary(self, size: int) -> None:
        """Every vocabulary has tokens to go on with."""

    def draw(self, rows: Sequence[Row], m: int, tools: DrawingTools) -> list[Trajectory]:
        """Of each prompt the first rollouts, then the branches of each.

        Args:
            rows: of the data set, one for each prompt.
            m: rollouts per prompt.
            tools: of the run.
        """
        roots = tools.draw(repeat_rows(rows, self.first))
        entropies = tools.measure_entropy(roots)
        rng = Random(tools.seed)
        cuts = [self._choose(one, entropy, tools.tokenizer, rng) for one, entropy in zip(roots, entropies, strict=True)]
        begun = [begin_as(one, cut) for one, cut in zip(roots, cuts, strict=True) for _ in range(self.branches)]
        grown = tools.go_on(begun, 1)
        _log_cuts(cuts, entropies, tools)
        groups = zip(split_groups(roots, self.first), split_groups(grown, m - self.first), strict=True)
        return tools.score([one for first, rest in groups for one in (*first, *rest)], repeat_rows(rows, m), m)

    def _choose(self, root: Trajectory, entropy: Sequence[float], tokenizer: Any, rng: Random) -> int:
        """How many tokens of a rollout its branches take over."""
        places = find_unsure_places(root, entropy, self.top, tokenizer)
        return rng.choice(places) if places else 0


def find_unsure_places(root: Trajectory, entropy: Sequence[float], top: int, tokenizer: Any) -> list[int]:
    """The places of a rationale that branches may begin at, those of the highest entropy, earlier ones first in ties.

    Args:
        root: a rollout.
        entropy: of the distribution that each of its tokens was drawn from, in nats.
        top: the most places.
        tokenizer: tells special tokens and texts.
    """
    special = set(tokenizer.all_special_ids)
    by_entropy = sorted(range(1, root.rationale_length), key=lambda place: -entropy[place])
    found: list[int] = []
    for place in by_entropy:
        if len(found) == top:
            break
        token = root.ids[place]
        if token not in special and len(str(tokenizer.decode([token])).strip()) > 1:
            found.append(place)
    return found


def begin_as(root: Trajectory, cut: int) -> Trajectory:
    """The beginning of a rollout, as context: prompt and the first tokens of its rationale, none of them sampled here.

    Args:
        root: a rollout.
        cut: how many tokens are taken over.
    """
    taken = (Segment(root.ids[:cut], Role.THINK, sampled=False),) if cut else ()
    return replace(root, segments=taken)


def _log_cuts(cuts: Sequence[int], entropies: Sequence[Sequence[float]], tools: DrawingTools) -> None:
    """Log how long beginnings are, and how unsure the policy was behind them, over all processes."""
    told = tools.gather([(cut, entropy[cut]) for cut, entropy in zip(cuts, entropies, strict=True) if cut])
    everywhere = tools.gather([len(cuts)])
    tools.log("drawing/kept", sum(cut for cut, _ in told) / sum(everywhere))
    if told:
        tools.log("drawing/entropy", sum(value for _, value in told) / len(told))
