"""Rewards that judge an answer by a column of its row, and not by a reference answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from qredit.rewards.constraints import parse_constraints, score_constraints
from qredit.rewards.sandbox import SANDBOX
from qredit.rewards.thinking import strip_thinking
from qredit.rewards.unit_tests import parse_tests, score_unit_tests
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class ColumnReward:
    """A reward by what a row holds.

    Attributes:
        name: as given to --reward; the name that logs show.
        summary: one line for the command line.
        column: of the data.
        parse: a value of the column as what `score` reads; refuses what it cannot judge by.
        score: (answer, parsed value) → number in [0, 1].
        prepare: refuses to go on where nothing can be judged on this machine.
    """

    name: str
    summary: str
    column: str
    parse: Callable[[Any], Any]
    score: Callable[[str, Any], float]
    prepare: Callable[[], None] = lambda: None

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse rows that cannot be judged, before anything is sampled.

        Raises:
            QreditError: a row without the column, or with a value that cannot be read; as `prepare`.
        """
        for row, example in enumerate(examples):
            where = example.place or f"row {example.id or row}"
            if example.columns.get(self.column) is None:
                there = ", ".join(sorted(example.columns)) or "none"
                raise QreditError(
                    f"reward '{self.name}' reads column '{self.column}', which {where} lacks; has: {there}"
                )
            self._parse(example.columns[self.column], where)
        self.prepare()

    def make_function(self) -> Callable[..., list[float]]:
        """The reward as a TRL reward function, named as in its logs.

        It reads the columns `response`, or else completions cut after their thinking, and its own.

        The function it returns raises QreditError where its column is not there, or as `check`.
        """

        def reward(*, completions: Sequence[Any], response: Sequence[str] | None = None, **columns: Any) -> list[float]:
            if self.column not in columns:
                there = ", ".join(sorted(columns))
                raise QreditError(f"reward '{self.name}' needs a column '{self.column}'; there are: {there}")
            said = response if response is not None else [strip_thinking(get_text(one)) for one in completions]
            rows = enumerate(zip(said, columns[self.column], strict=True))
            return [self.score(text, self._parse(value, f"row {row}")) for row, (text, value) in rows]

        reward.__name__ = self.name
        reward.reads_gold = False  # type: ignore[attr-defined]
        return reward

    def _parse(self, value: Any, where: str) -> Any:
        try:
            return self.parse(value)
        except QreditError as error:
            raise QreditError(f"reward '{self.name}', {where}: {error}") from None


def get_text(completion: Any) -> str:
    """A completion's text: itself, or the content of its last chat message."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    return content if isinstance(content, str) else ""


COLUMN_REWARDS: Mapping[str, ColumnReward] = MappingProxyType(
    {
        one.name: one
        for one in (
            ColumnReward(
                "unit_tests",
                "the weighted share of a row's tests that the program in the answer passes, run in a sandbox",
                "tests",
                parse_tests,
                score_unit_tests,
                SANDBOX.check,
            ),
            ColumnReward(
                "constraints",
                "the share of a row's constraints, such as words(most=50), that the answer keeps",
                "constraints",
                parse_constraints,
                score_constraints,
            ),
        )
    }
)
