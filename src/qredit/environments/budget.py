"""How much an episode may take: tokens of a turn, turns, and tokens of what the environment says, counted apart."""

from dataclasses import dataclass

from qredit.rollouts.sampling_params import TokenBudget
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class EpisodeBudget:
    """The most that an episode may take. A turn, or an observation, is begun only if a whole one still fits.

    Attributes:
        turn: tokens that are sampled in one turn.
        turns: turns, the answer's among them.
        observation: tokens of one observation, with what the chat template puts around it.
        sampled: tokens that are sampled in all turns; None is `turns` whole ones.
        observed: tokens of all observations; None is one before each turn but the first.

    Raises:
        QreditError: not even one turn fits.
    """

    turn: TokenBudget
    turns: int = 4
    observation: int = 256
    sampled: int | None = None
    observed: int | None = None

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise QreditError(f"max_turns must be at least 1, got {self.turns}")
        if self.turns > 1 and self.observation < 1:
            raise QreditError(f"observation_budget must be at least 1 token, got {self.observation}")
        if self.sampled is not None and self.sampled < self.one_turn:
            raise QreditError(
                f"episode_budget={self.sampled} holds no turn: one takes up to {self.one_turn} tokens "
                f"({self.turn.thinking} of thinking, {self.turn.answer} of the answer)"
            )
        if self.turns > 1 and self.observed is not None and self.observed < self.observation:
            raise QreditError(f"all observations have {self.observed} tokens, and one alone takes {self.observation}")

    @property
    def one_turn(self) -> int:
        """The most tokens that are sampled in a turn."""
        return self.turn.thinking + self.turn.answer

    def is_last(self, turn: int, sampled: int, observed: int) -> bool:
        """Whether no turn may follow the one that begins now, whatever it takes of its own budget.

        Args:
            turn: its number, from 0.
            sampled: tokens that were sampled before it.
            observed: tokens of observations before it.
        """
        if turn + 1 >= self.turns:
            return True
        if self.sampled is not None and sampled + 2 * self.one_turn > self.sampled:
            return True
        return self.observed is not None and observed + self.observation > self.observed

    def longest(self, closing: int) -> int:
        """The most tokens that can stand behind a prompt, less the last answer's.

        Args:
            closing: tokens of a closing that is forced, which are not sampled.
        """
        turns = self.turns if self.sampled is None else min(self.turns, max(self.sampled // self.one_turn, 1))
        read = (turns - 1) * self.observation
        read = read if self.observed is None else min(read, self.observed)
        return turns * (self.one_turn + closing) + read - self.turn.answer
