"""The sample with the best score: best-of-N."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qredit.selection.protocol import Ballot, Choice, Score, Selected, Selection, check_score, share_equally


@dataclass(frozen=True)
class best_of(Selection):
    """argmax_i s_i over samples whose answer is not blank; a tie is shared.

    A sample without a score is taken only where no sample of its question has one: then all are tied. What it costs in
    KL, and what it reaches beside the tilted policy of the same KL, is measured by `qredit lab best_of_n`.

    Args:
        score: of each sample.

    Raises:
        QreditError: no score.
    """

    least: ClassVar[int] = 2
    score: Score | None = None

    def __post_init__(self) -> None:
        check_score("best_of", self.score)

    def select(self, ballots: Sequence[Ballot], seed: int) -> Selected:
        assert self.score is not None
        found = self.score.score(ballots)
        chosen = (_choose_best(ballot, own) for ballot, own in zip(ballots, found.scores, strict=True))
        return Selected(tuple(chosen), found.counts)


def _choose_best(ballot: Ballot, scores: Sequence[float | None]) -> Choice:
    known = {place: s for place in ballot.standing if (s := scores[place]) is not None}
    best = [place for place, s in known.items() if s == max(known.values())] if known else ballot.standing
    return Choice(share_equally(len(ballot.predictions), best))
