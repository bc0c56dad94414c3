"""What makers share that ask a language model behind an endpoint about the turns of an episode."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qredit.fields._step_judge import EndpointMaker
from qredit.fields._turns import TurnText
from qredit.rewards.judge.endpoint import count_replies, parse_numbers, show_prompt
from qredit.rollouts.field_maker import FieldTools
from qredit.rollouts.trajectory import Trajectory


@dataclass(frozen=True)
class TurnJudge(EndpointMaker):
    """A maker of `turn_reward` that asks one question about each episode, and is answered by a list of numbers."""

    fills: ClassVar[tuple[str, ...]] = ("turn_reward",)

    def _ask(
        self, questions: Sequence[tuple[str, str]], lengths: Sequence[int], most: int, tools: FieldTools
    ) -> list[list[int] | None]:
        """The numbers that each question is answered by; None where nothing was heard, or nothing can be read.

        Args:
            questions: what the judge is to do, and the episode.
            lengths: how many numbers each is to be answered by.
            most: the largest number.
            tools: of the run.

        Raises:
            QreditError: as `EndpointJudge.ask`.
        """
        replies = self._judge.ask(questions)
        read = [
            None if reply is None else parse_numbers(reply, length, most)
            for reply, length in zip(replies, lengths, strict=True)
        ]
        self._log_failures(count_replies(replies, read), tools)
        return read


def show_question(one: Trajectory, show_answer: bool) -> str:
    """What an episode began with, as a judge reads it.

    Args:
        one: the episode.
        show_answer: with the gold answer, where there is one.
    """
    gold = one.example.get("answer") if show_answer else None
    known = "" if gold is None else f"\n\nThe right answer:\n{gold}"
    return f"Question:\n{show_prompt(one.example['prompt'])}{known}"


def show_turns(turns: Sequence[TurnText]) -> str:
    """The turns of an episode as a judge reads them, numbered from 1."""
    shown = "\n\n".join(_show_turn(number, turn) for number, turn in enumerate(turns, start=1))
    return f"Episode of {len(turns)} turns:\n\n{shown}"


def _show_turn(number: int, turn: TurnText) -> str:
    observed = f"\n<answered>\n{turn.observed}\n</answered>" if turn.observed else ""
    return f'<turn number="{number}">\n<said>\n{turn.said}\n</said>{observed}\n</turn>'
