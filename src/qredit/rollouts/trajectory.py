"""What a sampler returns: one completion, with how it was drawn and how it ended."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rollout:
    """One sampled completion.

    Attributes:
        ids: rationale, closing and sampled answer.
        logp: log-probability of each token under the model at the sampling temperature, before any truncation or
            penalty, which the model that is trained does not have either; 0 for forced tokens.
        close_start, close_end: where the closing stands in `ids`.
        forced: the closing was forced.
        dropped_end: an end-of-text inside thinking was dropped, and thinking closed by force there.
        ended: the answer ended by itself.
    """

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    close_start: int
    close_end: int
    forced: bool
    dropped_end: bool
    ended: bool

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The sampled answer, its end included when it ended."""
        return self.ids[self.close_end :]
