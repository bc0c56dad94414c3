"""`cluster`: answers that a scorer takes for one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qredit.fields._clusters import number_clusters
from qredit.rewards.registry import REGISTRY
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import look_up
from qredit.utils.extras import require_extras


@dataclass(frozen=True)
class same_answers(RolloutMaker):
    """`cluster` (B,): rollouts of a group whose answers have one normal form under a scorer; -1 without an answer.

    A blank answer is none, nor is what an episode said last whose budget ended before it came to one. Each answer joins
    the first cluster whose first member it is alike. Without a maker `cluster` compares texts, case and white space
    aside.

    Args:
        scorer: a registered reward (`qredit.rewards`), such as math_equal, numeric or normalized_exact_match.

    Source: arXiv 2504.05812 (EMPO), the rule-based equality of its mathematics.
    """

    scorer: str = "normalized_exact_match"
    fills: ClassVar[tuple[str, ...]] = ("cluster",)

    def __post_init__(self) -> None:
        require_extras(f"reward '{self.scorer}'", *look_up("reward", self.scorer, REGISTRY).extras)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        return {"cluster": number_clusters(trajectories, REGISTRY[self.scorer].grouped)}
