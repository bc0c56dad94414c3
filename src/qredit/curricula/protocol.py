"""What chooses prompts by rule: from what the rows of a run say, the sampler of its prompts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

from qredit.data.prompt_sampler import PromptSampler
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import to_one_line

PROBE_PREFIX = "probe."
"""Columns of this beginning are numbers of a probe's file: `probe.success`."""
Harder = Literal["larger", "smaller"]


@dataclass(frozen=True)
class CurriculumData:
    """What a curriculum is given of a run.

    Attributes:
        prompts: rows of the data set that is trained on.
        columns: those of its columns that the curriculum reads, by name: a value for each row.
        others: names of the columns that there are beside them, for errors.
        per_generation: prompts of a generation, over all processes.
        generations: of the whole run, at least 1.
        seed: of the run.
    """

    prompts: int
    columns: Mapping[str, Sequence[Any]]
    per_generation: int
    generations: int
    seed: int
    others: Sequence[str] = ()

    def column(self, name: str, rule: str) -> Sequence[Any]:
        """The values of a column, one for each row.

        Args:
            name: of the column.
            rule: the curriculum, for errors.

        Raises:
            QreditError: there is no such column, or rows without a value.
        """
        if name not in self.columns:
            if name.startswith(PROBE_PREFIX):
                raise QreditError(f"curriculum {rule} reads {name}, a number of a probe's file; give probe")
            there = ", ".join(sorted((*self.columns, *self.others))) or "none"
            raise QreditError(f"curriculum {rule} reads column '{name}', which the data lacks; there are: {there}")
        values = self.columns[name]
        if empty := sum(value is None for value in values):
            more = "; probe them, or leave them out with keep" if name.startswith(PROBE_PREFIX) else ""
            raise QreditError(f"curriculum {rule}: {empty} of {len(values)} rows have no {name}{more}")
        return values

    def difficulty(self, name: str, harder: Harder, rule: str) -> list[float]:
        """The numbers of a column, with their sign changed where smaller is harder: larger is harder.

        Args:
            name: of the column.
            harder: which numbers stand for harder prompts.
            rule: the curriculum, for errors.

        Raises:
            QreditError: as `column`; a value that is no number.
        """
        sign = 1.0 if harder == "larger" else -1.0
        found = []
        for row, value in enumerate(self.column(name, rule)):
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                said = to_one_line(repr(value))
                raise QreditError(f"curriculum {rule}: column '{name}' must hold numbers; row {row} has {said}")
            found.append(sign * value)
        return found

    def check_batch(self, count: int, what: str, rule: str) -> None:
        """Refuse a part of the data from which no whole generation could be drawn.

        Args:
            count: its prompts.
            what: the part, in words.
            rule: the curriculum, for errors.

        Raises:
            QreditError: fewer than a generation has.
        """
        if count < self.per_generation:
            raise QreditError(
                f"curriculum {rule}: {what} has {count} of {self.prompts} prompts, fewer than the "
                f"{self.per_generation} of a step; choose other limits, or lower the prompts per step"
            )


@runtime_checkable
class Curriculum(Protocol):
    """A rule: a frozen dataclass of its arguments, which keeps no state. The sampler that it makes does.

    Attributes:
        columns: the columns that it reads: of the data, or `probe.NAME` for a number of a probe's file.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...

    def make(self, data: CurriculumData, /) -> PromptSampler:
        """The sampler of a run's prompts.

        Its draws are a function of the seed, of its state and of what it observed, as `PromptSampler` asks.

        Raises:
            QreditError: rows that the rule cannot be applied to.
        """
        ...


def check_harder(rule: str, harder: str) -> None:
    """Refuse a direction that is none.

    Raises:
        QreditError: names the choices.
    """
    if harder not in ("larger", "smaller"):
        raise QreditError(f"{rule}: harder must be 'larger' or 'smaller', got {harder!r}")


def check_share(rule: str, name: str, value: float, positive: bool = True) -> None:
    """Refuse a share outside [0, 1].

    Args:
        rule: the curriculum.
        name: of its argument.
        value: of its argument.
        positive: refuse 0, too.

    Raises:
        QreditError: names the argument and its bounds.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= 1
        or (positive and value == 0)
    ):
        least = "more than 0" if positive else "at least 0"
        raise QreditError(f"{rule}: {name} must be {least} and at most 1, got {value!r}")


def check_begins(rule: str, begins: Sequence[float], count: int) -> None:
    """Refuse beginnings of stages that are not shares of the run in rising order, the first 0.

    Args:
        rule: the curriculum.
        begins: at which share of the run each stage begins.
        count: how many stages there are.

    Raises:
        QreditError: names them.
    """
    rising = all(one < other for one, other in pairwise(begins))
    if len(begins) != count or begins[0] != 0 or not rising or not begins[-1] < 1:
        raise QreditError(f"{rule}: begins must be {count} shares of the run that rise from 0 to below 1, got {begins}")
