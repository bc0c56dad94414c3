"""What chooses one of the answers that were sampled to a question, and what it sees: no reference answer, no reward."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class Ballot:
    """The k samples of one question.

    Attributes:
        question: its prompt as text.
        predictions: the answers.
        rationales: what was thought before each.
        mean_logp: of each sample, the mean log-probability of its sampled tokens in nats; None where none is known.
        answer_logp: of each, the log-probability of its answer given its rationale in nats, a sum; None likewise.
        groups: places of samples that are one answer, in order of first occurrence; a blank answer is in none.
    """

    question: str
    predictions: tuple[str, ...]
    rationales: tuple[str, ...]
    mean_logp: tuple[float | None, ...]
    answer_logp: tuple[float | None, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def standing(self) -> list[int]:
        """Places of the samples that may be chosen, in order: those whose answer is not blank."""
        return sorted(place for group in self.groups for place in group)


@dataclass(frozen=True)
class Game:
    """Two samples of a question that a judge compared twice, each standing first once.

    Attributes:
        first, second: their places; `first` stood first in the first comparison.
        verdicts: the place that each comparison chose; None where no reply could be had or read.
    """

    first: int
    second: int
    verdicts: tuple[int | None, int | None]

    @property
    def winner(self) -> int | None:
        """The place that was chosen in both orders; None where there is none."""
        return self.verdicts[0] if self.verdicts[0] == self.verdicts[1] else None

    @property
    def is_swayed(self) -> bool:
        """Whether the order alone decided: both verdicts could be read, and they differ."""
        return None not in self.verdicts and self.verdicts[0] != self.verdicts[1]


@dataclass(frozen=True)
class Choice:
    """What was chosen of a question's samples.

    Attributes:
        chances: of each sample to be the chosen one; they sum to 1, or to 0 where no answer stands. A tie is shared.
        games: that a judge decided, in order.
    """

    chances: tuple[float, ...]
    games: tuple[Game, ...] = ()


@dataclass(frozen=True)
class Selected:
    """The choice of each question, and what came of a judge's questions.

    Attributes:
        choices: in the order of the ballots.
        counts: `asked`, `unanswered` (no reply after all tries), `unreadable`; empty without a judge.
    """

    choices: tuple[Choice, ...]
    counts: Mapping[str, int] = field(default_factory=dict)


class Part:
    """A rule, or a score or judge that it takes: a frozen dataclass of its arguments."""

    def check_model(self) -> None:
        """Refuse a model that it would load and that is not there, before anything is computed: of its parts too."""
        for argument in fields(self):  # type: ignore[arg-type]
            part = getattr(self, argument.name)
            if isinstance(part, Part):
                part.check_model()


class Selection(Part, ABC):
    """A rule: a frozen dataclass of its arguments.

    Attributes:
        least: samples of a question that it needs.
    """

    least: ClassVar[int] = 1

    def check_size(self, k: int) -> None:
        """Refuse a k that leaves nothing to choose from.

        Raises:
            QreditError: names the rule, the k, and the least that it may be.
        """
        if k < self.least:
            raise QreditError(f"select: {type(self).__name__} needs k of at least {self.least}, got {k}")

    @abstractmethod
    def select(self, ballots: Sequence[Ballot], seed: int) -> Selected:
        """A choice for each ballot.

        Args:
            ballots: one for each question.
            seed: all that is drawn is a function of it and of a ballot's place.
        """


class Score(Part, ABC):
    """A number for each sample, the higher the better: a frozen dataclass of its arguments."""

    @abstractmethod
    def score(self, ballots: Sequence[Ballot]) -> "Scored":
        """The scores of every ballot's samples."""


@dataclass(frozen=True)
class Scored:
    """Scores of samples.

    Attributes:
        scores: for each ballot one number for each sample; None where there is none.
        counts: as in `Selected`.
    """

    scores: tuple[tuple[float | None, ...], ...]
    counts: Mapping[str, int] = field(default_factory=dict)


def share_equally(count: int, chosen: Sequence[int]) -> tuple[float, ...]:
    """The chances of `count` samples of which these are equally good; all 0 where none is.

    Args:
        count: samples of the question.
        chosen: their places, each once.
    """
    return tuple(1 / len(chosen) if place in chosen else 0.0 for place in range(count))


def check_score(rule: str, score: object) -> None:
    """Refuse what is no score.

    Args:
        rule: that takes it, for errors.
        score: as it was given.

    Raises:
        QreditError: says what it is.
    """
    if not isinstance(score, Score):
        raise QreditError(f"select: {rule} needs a score, such as {rule}(answer_logp()), got {score!r}")
