"""Every two different answers compared by a judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

from qredit.selection.judges.games import play_games
from qredit.selection.judges.protocol import Judge, check_judge
from qredit.selection.protocol import Ballot, Choice, Game, Selected, Selection, share_equally


@dataclass(frozen=True)
class pairwise(Selection):
    """The answer that wins most comparisons against every other one, each asked in both orders.

    An answer is shown with the rationale of its first sample. A comparison that both orders decide alike is a point for
    the winner. One that the order decides, or of which a reply is missing, is half a point for both, and is counted.
    d different answers cost d (d - 1) questions. A tie of points is shared.

    Args:
        judge: who compares.

    Raises:
        QreditError: no judge.
    """

    least: ClassVar[int] = 2
    judge: Judge | None = None

    def __post_init__(self) -> None:
        check_judge("pairwise", self.judge)

    def select(self, ballots: Sequence[Ballot], seed: int) -> Selected:
        assert self.judge is not None
        pairs = [
            (number, one[0], other[0])
            for number, ballot in enumerate(ballots)
            for one, other in combinations(ballot.groups, 2)
        ]
        games, counts = play_games(self.judge, ballots, pairs)
        played: list[list[Game]] = [[] for _ in ballots]
        for (number, _, _), game in zip(pairs, games, strict=True):
            played[number].append(game)
        return Selected(tuple(_choose(b, own) for b, own in zip(ballots, played, strict=True)), counts)


def _choose(ballot: Ballot, games: Sequence[Game]) -> Choice:
    points = {group[0]: 0.0 for group in ballot.groups}
    for game in games:
        for place in (game.first, game.second):
            points[place] += 0.5 if game.winner is None else float(game.winner == place)
    best = [place for place, won in points.items() if won == max(points.values())]
    return Choice(share_equally(len(ballot.predictions), best), tuple(games))
