"""What makers share that ask a language model behind an endpoint about the steps of a rationale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from qredit.rewards.judge.endpoint import (
    EndpointJudge,
    JudgeCase,
    add_counts,
    check_endpoint,
    count_replies,
    parse_step_list,
    show_case,
    show_prompt,
)
from qredit.rewards.judge.steps import split_step_texts
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import Trajectory
from qredit.utils.errors import QreditError, check_count

Critiques = Sequence[frozenset[int]]


@dataclass(frozen=True)
class EndpointMaker(RolloutMaker):
    """A maker that asks an `EndpointJudge`.

    A question that is not answered after all tries, and a reply that cannot be read, say nothing of their rollout. An
    endpoint that refuses, or that answers none of a call's questions, ends the run, which can be resumed.

    Logged: `judge/unanswered` and `judge/unreadable`, their shares of all questions.
    """

    url: str
    model: str

    def __post_init__(self) -> None:
        check_endpoint(self, self.url, self.model)

    @property
    def _judge(self) -> EndpointJudge:
        """Who is asked."""
        return EndpointJudge(self.url, self.model)

    def _log_failures(self, counts: Mapping[str, int], tools: FieldTools) -> None:
        """Log what came of the questions of a call, as `count_replies` counts it."""
        asked = max(counts.get("asked", 0), 1)
        tools.log_metric("judge/unanswered", counts.get("unanswered", 0) / asked)
        tools.log_metric("judge/unreadable", counts.get("unreadable", 0) / asked)


@dataclass(frozen=True)
class StepJudge(EndpointMaker):
    """A maker that asks which steps of a rationale something holds of; see `EndpointMaker`.

    Attributes:
        critiques: replies asked for per rationale; several need a temperature above 0.
        temperature: of the judge's sampling.
        show_answer: the judge is shown the gold answer.
    """

    one_turn: ClassVar[bool] = True  # results of tools stand between the steps of a longer episode
    critiques: int = 1
    temperature: float = 0.0
    show_answer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("critiques", self.critiques, 1)
        if self.critiques > 1 and not self.temperature > 0:
            raise QreditError(
                f"critiques={self.critiques} at temperature {self.temperature:g} are one and the same; give a "
                "temperature above 0"
            )

    @property
    def _judge(self) -> EndpointJudge:
        return replace(super()._judge, temperature=self.temperature)

    def _ask(self, tasks: Sequence[tuple[str, Trajectory]], tools: FieldTools) -> list[Critiques]:
        """For each rollout the critiques that could be read, each a set of steps by number from 0.

        A rollout without steps is not asked about.

        Args:
            tasks: what the judge is to do, and the rollout.
            tools: of the run.

        Raises:
            QreditError: as `EndpointJudge.ask`.
        """
        cases = [self._case(one, tools.tokenizer) for _, one in tasks]
        questions = [
            (task, show_case(case))
            for (task, _), case in zip(tasks, cases, strict=True)
            if case.steps
            for _ in range(self.critiques)
        ]
        replies = iter(self._judge.ask(questions))
        found: list[Critiques] = []
        counts = []
        for case in cases:
            told = [next(replies) for _ in range(self.critiques)] if case.steps else []
            read = [None if reply is None else parse_step_list(reply, len(case.steps)) for reply in told]
            found.append([critique for critique in read if critique is not None])
            counts.append(count_replies(told, read))
        self._log_failures(add_counts(*counts), tools)
        return found

    def _case(self, one: Trajectory, tokenizer: Any) -> JudgeCase:
        return JudgeCase(
            show_prompt(one.example["prompt"]),
            tuple(split_step_texts(one.rationale_ids, tokenizer)),
            str(one.example["answer"]) if self.show_answer and "answer" in one.example else None,
            one.response,
        )
