"""Groups laid out in one sequence without padding: each prompt once, then the completions of its rollouts."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class PackedGroup:
    """Where one group stands in the sequence.

    Attributes:
        start: its first token.
        prompt: tokens of its prompt.
        completions: tokens of each rollout's completion that stand in the sequence: all but its last, which predicts
            nothing.
    """

    start: int
    prompt: int
    completions: tuple[int, ...]

    @property
    def shared(self) -> slice:
        """The prompt's tokens."""
        return slice(self.start, self.start + self.prompt)

    @property
    def own(self) -> slice:
        """The tokens of all completions."""
        return slice(self.start + self.prompt, self.end)

    @property
    def end(self) -> int:
        return self.start + self.prompt + sum(self.completions)


@dataclass(frozen=True, eq=False)
class Packing:
    """Rows with their prompts shared: N tokens in one sequence, S completion tokens to score.

    Attributes:
        ids, positions: (1, N) tokens; the positions of every completion go on from its prompt's.
        groups: in the order of the sequence.
        predictor: (S,) the place in the sequence whose output predicts each completion token: the token before it, and
            for the first of a row the prompt's last.
        target: (S,) the completion tokens.
        row, column: (S,) where each stands in the (B, T) batch.
        shape: (B, T).
    """

    ids: Int[Tensor, "1 N"]
    positions: Int[Tensor, "1 N"]
    groups: tuple[PackedGroup, ...]
    predictor: Int[Tensor, " S"]
    target: Int[Tensor, " S"]
    row: Int[Tensor, " S"]
    column: Int[Tensor, " S"]
    shape: tuple[int, int]

    def spread(self, scores: Tensor) -> Tensor:
        """(S,) → (B, T), 0 where no token stands."""
        return scores.new_zeros(self.shape).index_put((self.row, self.column), scores)
