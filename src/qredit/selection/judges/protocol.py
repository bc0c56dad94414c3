"""Who compares samples, and how a question to them and their replies are written."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qredit.rewards.judge.endpoint import Question, count_replies, parse_word
from qredit.selection.protocol import Part
from qredit.utils.errors import QreditError


class Judge(Part, ABC):
    """A language model that is asked: a frozen dataclass of its arguments. What it says is untrusted text."""

    @property
    @abstractmethod
    def varies(self) -> bool:
        """Whether it may answer one question in different ways."""

    @abstractmethod
    def ask(self, questions: Sequence[Question]) -> list[str | None]:
        """The reply to each question, in order; None where none came.

        Args:
            questions: a task, and what it is about.
        """

    def decide(self, questions: Sequence[Question], words: tuple[str, str]) -> "Verdicts":
        """Which of two words each reply ends with.

        Args:
            questions: a task, which asks for one of them at the end, and what it is about.
            words: the two.
        """
        replies = self.ask(questions)
        read = [None if reply is None else parse_word(reply, words) for reply in replies]
        return Verdicts(tuple(read), count_replies(replies, read))


@dataclass(frozen=True)
class Verdicts:
    """Decisions of a judge.

    Attributes:
        words: one of the two for each question; None where no reply could be had or read.
        counts: as `count_replies` gives them.
    """

    words: tuple[str | None, ...]
    counts: Mapping[str, int]


def check_judge(rule: str, judge: object) -> None:
    """Refuse what is no judge.

    Args:
        rule: that takes it, for errors.
        judge: as it was given.

    Raises:
        QreditError: says what it is, and which judges there are.
    """
    if not isinstance(judge, Judge):
        given = "" if judge is None else f", got {judge!r}"
        choices = f"{rule}(endpoint(url='http://…', model='…')) or {rule}(local(model='…'))"
        raise QreditError(f"select: {rule} needs a judge: {choices}{given}")


def show_solution(name: str, rationale: str, answer: str) -> str:
    """A sample as a judge reads it.

    Args:
        name: of the mark around it.
        rationale: what was thought.
        answer: what was answered.
    """
    return f"<{name}>\n{rationale.strip()}\n\nAnswer: {answer.strip()}\n</{name}>"
