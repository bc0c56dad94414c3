"""`macro`: runs of equal length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from qredit.credit.macro import fixed_macros
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import check_count


@dataclass(frozen=True)
class macros_by_length(RolloutMaker):
    """`macro` (B, T): every `length` sampled tokens are one macro action, the last sampled token one of its own.

    -1 on tokens that were not sampled, which are not counted either.

    Args:
        length: of a macro action, in tokens.

    Source: arXiv 2410.02743, "n-gram based termination", of which 5 is the default there too. Differences: see
    `qredit.credit.macro.fixed_macros`.
    """

    length: int = 5
    fills: ClassVar[tuple[str, ...]] = ("macro",)

    def __post_init__(self) -> None:
        check_count("length", self.length, 1)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        return {"macro": [self._number(one.sampled) for one in trajectories]}

    def _number(self, sampled: Sequence[bool]) -> list[int]:
        found: list[int] = fixed_macros(torch.tensor([sampled], dtype=torch.bool), self.length)[0].tolist()
        return found
