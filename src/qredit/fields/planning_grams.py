"""`planning`: strategic n-grams, mined from the right rollouts of the generation."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.ngrams import Gram, count_grams, find_strategic_grams, mark_grams
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import check_count


@dataclass(frozen=True)
class planning_grams(RolloutMaker):
    """`planning` (B, T): True inside an n-gram of token ids that right rationales to several questions share.

    Mined from the first right rollout (reward 1 or more) of each question of the generation, on this process; False
    beyond the rationale, and everywhere where too few rollouts are right.

    Logged: `planning/grams`, how many n-grams were found, `planning/share`, the share of rationale tokens inside one,
    and `planning/entropy`, -Σ f log f in nats over the frequencies f of their occurrences in all rationales: how many
    different plans the policy uses.

    Args:
        shortest, longest: of the n-grams, in tokens.
        least_rollouts: how many right rollouts must hold an n-gram.

    Source: arXiv 2509.03646, known from others' notes: n-grams mined from right solutions, and the entropy of their
    use as the measure of exploration. Differences: they are mined anew from every generation, so that the field is a
    function of its rollouts, where the paper keeps one list; by equal ids and not by clusters of meaning; the
    thresholds are ours.
    """

    shortest: int = 3
    longest: int = 5
    least_rollouts: int = 3
    fills: ClassVar[tuple[str, ...]] = ("planning",)
    one_turn: ClassVar[bool] = True  # results of tools stand between the tokens of a longer episode

    def __post_init__(self) -> None:
        check_count("shortest", self.shortest, 1)
        check_count("longest", self.longest, self.shortest)
        check_count("least_rollouts", self.least_rollouts, 2)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        right = {one.group: one.rationale_ids for one in reversed(trajectories) if one.reward >= 1}
        grams = find_strategic_grams(right.values(), self.shortest, self.longest, self.least_rollouts)
        marked = [mark_grams(one.rationale_ids, grams) for one in trajectories]
        used: Counter[Gram] = sum((count_grams(one.rationale_ids, grams) for one in trajectories), Counter())
        tools.log_metric("planning/grams", len(grams))
        tools.log_metric("planning/share", sum(map(sum, marked)) / max(sum(map(len, marked)), 1))
        tools.log_metric("planning/entropy", compute_frequency_entropy(used.values()))
        return {"planning": marked}


def compute_frequency_entropy(counts: Iterable[int]) -> float:
    """-Σ f log f of the frequencies that counts make, in nats; 0 without any."""
    counts = list(counts)
    whole = sum(counts)
    return -math.fsum(count / whole * math.log(count / whole) for count in counts if count)
