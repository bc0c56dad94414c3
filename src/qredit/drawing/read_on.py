"""Beside the rollouts of a prompt, the text that really stands behind it: the next-token part of RMT's loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from qredit.core.field_names import REINFORCED
from qredit.data.encoding import PROMPT_IDS
from qredit.drawing.protocol import DrawingTools, Row, repeat_rows
from qredit.rollouts.collate import split_groups
from qredit.rollouts.tokenizer import encode_in_context
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class read_on:
    """In the place of the last rollout of each prompt the text that follows it, to be learned from as it stands.

    The column `by` holds that text, from the token on that the question asks for. That token is what rollouts are
    rewarded for, so it is read and not learned from; the others are. They were not drawn, so the row has no reward, and
    no statistic of its group knows of it. All m rollouts are drawn and logged; the one that gives its place is not
    learned from. The stage `reinforce_drawn(weight)` gives the tokens of the text the coefficient weight: weight times
    the gradient of their mean log-likelihood, under the run's reduction. They stand behind the prompt as it is asked,
    its opening included.

    Args:
        by: column of the text, such as `qredit text-data` writes.

    Raises:
        QreditError: no name of a column; a row without a text.

    Source: arXiv 2509.24375 (RMT), by notes of others: 0.1 times the next-token loss on the tokens that rollouts are
    not asked for. Difference: there these are all others of the text, here those that follow in the row.
    """

    fills: ClassVar[frozenset[str]] = frozenset({REINFORCED})
    independent: ClassVar[bool] = True
    by: str = "continuation"

    def __post_init__(self) -> None:
        if not isinstance(self.by, str) or not self.by:
            raise QreditError(f"read_on: by must name a column, got {self.by!r}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the text."""
        return (self.by,)

    def check_size(self, size: int) -> None:
        """Refuse groups in which no two rollouts could be compared."""
        if size < 3:
            raise QreditError(f"{self} leaves m - 1 rollouts to be compared, so m must be at least 3, got {size}")

    def check_vocabulary(self, size: int) -> None:
        """Every vocabulary has texts."""

    def draw(self, rows: Sequence[Row], m: int, tools: DrawingTools) -> list[Trajectory]:
        """The rollouts of each prompt, its text behind them.

        Args:
            rows: of the data set, one for each prompt.
            m: rows of a prompt.
            tools: of the run.
        """
        asked = repeat_rows(rows, m)
        drawn = split_groups(tools.score(tools.draw(asked), asked, m), m)
        texts = tools.score([self._read(row, tools) for row in rows], rows, 1, apart=True)
        told = [replace(text, reward=math.nan) for text in texts]
        return [one for own, text in zip(drawn, told, strict=True) for one in (*own[:-1], text)]

    def _read(self, row: Row, tools: DrawingTools) -> Trajectory:
        """The text behind a prompt as a row of its own."""
        text = row.get(self.by)
        if not isinstance(text, str) or not text:
            raise QreditError(f"{self}: column '{self.by}' must hold the text behind each prompt, got {text!r}")
        ids = encode_in_context(tools.tokenizer, text)
        asked = Segment(tuple(ids[:1]), Role.THINK, sampled=False)
        learned = Segment(tuple(ids[1:]), Role.ANSWER, sampled=True)  # not drawn, but learned from as if it were
        prompt = tuple(row[PROMPT_IDS])
        return Trajectory(prompt, (asked, learned), EndReason.CAP, reinforced=True)
