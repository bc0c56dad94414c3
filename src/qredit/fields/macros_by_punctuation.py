"""`macro`: clauses, as punctuation marks them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, ClassVar

from qredit.fields._macros import number_macros
from qredit.rewards.judge.steps import decode_pieces
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class macros_by_punctuation(RolloutMaker):
    """`macro` (B, T): a macro action ends with a token that holds one of `marks`; the last sampled token is one alone.

    -1 on tokens that were not sampled. A run of such tokens, such as "." and a line break, ends one macro and not
    several. Tokens are looked at as text and keep their ids.

    Args:
        marks: the characters that end a clause.

    Source: arXiv 2410.02743 cuts by a constituency parse. Difference: its parser is replaced by the marks, which need
    no other model and hold in any language that has them; so macros have no longest length.
    """

    marks: str = ".,;:!?\n"
    fills: ClassVar[tuple[str, ...]] = ("macro",)

    def __post_init__(self) -> None:
        if not isinstance(self.marks, str) or not self.marks:
            raise QreditError(f"marks must be a text of the characters that end a clause, got {self.marks!r}")

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        return {"macro": [self._number(one, tools.tokenizer) for one in trajectories]}

    def _number(self, trajectory: Trajectory, tokenizer: Any) -> list[int]:
        drawn = compress(decode_pieces(trajectory.ids, tokenizer), trajectory.sampled)
        ends = [any(mark in text for mark in self.marks) for text in drawn]
        begins = [before and not here for before, here in zip([False, *ends], ends, strict=False)]
        return number_macros(begins, trajectory.sampled)
