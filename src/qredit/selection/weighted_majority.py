"""The answer with most weight: votes that count by how sure each sample is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qredit.selection.protocol import Ballot, Choice, Score, Selected, Selection, check_score, share_equally
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class weighted_majority(Selection):
    """The answer a with the largest Σ_{i: ŷ_i = a} exp(s_i / temperature), for s a score such as a log-probability.

    With `mean_logp()` a sample weighs its length-normalised probability, the geometric mean of its tokens'
    probabilities. With `answer_logp()` it weighs p(ŷ_i | x, z_i). As temperature grows this becomes the majority. A
    sample without a score does not vote; where no sample of a question has one, all weigh the same.

    Args:
        score: of each sample, in nats where it is a log-probability.
        temperature: above 0; what scores are divided by.

    Raises:
        QreditError: no score, or a temperature that is not above 0 and finite.

    Source: arXiv 2203.11171, section 2 and table 1: "weighted sum (normalized)" is `mean_logp()` at temperature 1. The
    temperature is that of arXiv 2502.06233 (CISC), whose scores are divided by their sum over the samples. That
    changes no choice.
    """

    score: Score | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_score("weighted_majority", self.score)
        if not 0 < self.temperature < math.inf:
            raise QreditError(f"weighted_majority: temperature must be above 0, got {self.temperature}")

    def select(self, ballots: Sequence[Ballot], seed: int) -> Selected:
        assert self.score is not None
        found = self.score.score(ballots)
        chosen = (self._choose(ballot, own) for ballot, own in zip(ballots, found.scores, strict=True))
        return Selected(tuple(chosen), found.counts)

    def _choose(self, ballot: Ballot, scores: Sequence[float | None]) -> Choice:
        """The scores of one ballot made weights, the largest 1, so that none of them is lost to rounding."""
        known = {place: s for place in ballot.standing if (s := scores[place]) is not None}
        known = known or dict.fromkeys(ballot.standing, 0.0)
        top = max(known.values(), default=0.0)
        weigh = {place: math.exp((s - top) / self.temperature) for place, s in known.items()}
        sums = [math.fsum(weigh.get(place, 0.0) for place in group) for group in ballot.groups]
        best = max(sums, default=0.0)
        heaviest = [group[0] for group, total in zip(ballot.groups, sums, strict=True) if total == best]
        return Choice(share_equally(len(ballot.predictions), heaviest))
