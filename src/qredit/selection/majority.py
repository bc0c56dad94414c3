"""The most frequent answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.selection.protocol import Ballot, Choice, Selected, Selection, share_equally


@dataclass(frozen=True)
class majority(Selection):
    """The answer that most samples give; a tie is shared, a blank answer does not vote. This is m@k.

    Of samples with one answer the first is taken.

    Source: arXiv 2203.11171 (self-consistency, unweighted).
    """

    def select(self, ballots: Sequence[Ballot], seed: int) -> Selected:
        return Selected(tuple(_choose_most(ballot) for ballot in ballots))


def _choose_most(ballot: Ballot) -> Choice:
    most = max(map(len, ballot.groups), default=0)
    return Choice(share_equally(len(ballot.predictions), [g[0] for g in ballot.groups if len(g) == most]))
