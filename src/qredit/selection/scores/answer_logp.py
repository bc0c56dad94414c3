"""How likely the model's own answer is behind its rationale."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.selection.protocol import Ballot, Score, Scored


@dataclass(frozen=True)
class answer_logp(Score):
    """log p(ŷ_i | x, z_i), a sum over the answer's tokens, in nats, at the sampling temperature.

    p(y* | x, z), what J_Q trains, cannot be had at test time: this is the same number of the model's own answer. A
    sure wrong answer scores high, so it is a weaker guide.
    """

    def score(self, ballots: Sequence[Ballot]) -> Scored:
        return Scored(tuple(ballot.answer_logp for ballot in ballots))
