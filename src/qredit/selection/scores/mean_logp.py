"""How likely the sampled tokens were, on average."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.selection.protocol import Ballot, Score, Scored


@dataclass(frozen=True)
class mean_logp(Score):
    """(1/T_i) Σ_t log p(token_t), over all sampled tokens of a sample, in nats, at the sampling temperature."""

    def score(self, ballots: Sequence[Ballot]) -> Scored:
        return Scored(tuple(ballot.mean_logp for ballot in ballots))
