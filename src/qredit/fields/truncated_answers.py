"""`budget` and `budget_reward@j`: what answers are worth when thinking is cut at several budgets."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class truncated_answers(RolloutMaker):
    """`budget_reward@j` (B,): the mean reward of answers sampled where the rationale is cut behind c_j tokens.

    Thinking is closed there by force and `answers` answers are sampled by the weights of this moment. Where the
    rationale has at most c_j tokens it is not cut: all cuts behind its end share their answers, and their mean. NaN
    where no answer was scored.

    `budget` (B, T): on a rationale's token the number s of the budgets c_0 < … < c_{s-1} that lie at or before it, from
    0; -1 beyond the last budget, on the closing and on the answer.

    Logged: `budget/reward@C`, the mean over rollouts at the budget of C tokens.

    It costs, for B rollouts and S budgets, B · S · answers answers for each generation. Each cut is a prompt of its
    own, computed once for its answers and not shared with the other cuts of the rationale: Σ_j (prompt + c_j) tokens
    for a rollout.

    Args:
        budgets: c_j, ascending numbers of tokens, as many as the prior of `brpo` has.
        answers: sampled at each cut.

    Source: arXiv 2505.13438 (AnytimeReasoner), known from others' notes of its code: 4 budgets, 4 answers. Difference:
    the answers behind a rationale that ended early are pooled, there the last ones are repeated; they are not trained.
    """

    budgets: tuple[int, ...]
    answers: int = 4
    fills: ClassVar[tuple[str, ...]] = ("budget", "budget_reward")
    one_turn: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.budgets, tuple) or not self.budgets:
            raise QreditError(f"budgets must be a list of numbers of tokens, such as (8, 16), got {self.budgets!r}")
        for budget in self.budgets:
            check_count("each of budgets", budget, 0)
        if any(after <= before for before, after in pairwise(self.budgets)):
            raise QreditError(f"budgets must ascend, got {self.budgets}")
        check_count("answers", self.answers, 1)

    def list_fields(self, name: str) -> frozenset[str]:
        return frozenset({"budget", *self._rewards})

    @property
    def _rewards(self) -> list[str]:
        return [f"budget_reward@{number}" for number in range(len(self.budgets))]

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        earned = self._earn(trajectories, tools)
        for number, budget in enumerate(self.budgets):
            scored = [row[number] for row in earned if not math.isnan(row[number])]
            if scored:
                tools.log_metric(f"budget/reward@{budget}", math.fsum(scored) / len(scored))
        return {
            "budget": [self._number(one.rationale_length) for one in trajectories],
            **{name: [row[number] for row in earned] for number, name in enumerate(self._rewards)},
        }

    def _number(self, length: int) -> list[int]:
        """The budget that each token of a rationale falls under."""
        numbers = [bisect_right(self.budgets, place) for place in range(length)]
        return [number if number < len(self.budgets) else -1 for number in numbers]

    def _earn(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> list[list[float]]:
        """The mean reward at each budget, for each rollout."""
        if tools.answer is None:
            raise QreditError("truncated_answers samples answers, and rollouts of this run cannot be gone on with")
        cuts = [[min(budget, one.rationale_length) for budget in self.budgets] for one in trajectories]
        asked = [
            (one, cut) for one, own in zip(trajectories, cuts, strict=True) for cut in own for _ in range(self.answers)
        ]
        drawn = iter(tools.answer([one for one, _ in asked], [cut for _, cut in asked]))
        return [_average_by_cut(own, [next(drawn).reward for _ in own for _ in range(self.answers)]) for own in cuts]


def _average_by_cut(cuts: Sequence[int], rewards: Sequence[float]) -> list[float]:
    """The mean of the scored rewards at each cut, over all answers behind a cut at the same place; NaN without any.

    Args:
        cuts: numbers of tokens.
        rewards: as many for each cut, one cut after the other.
    """
    each = len(rewards) // len(cuts)
    pooled: dict[int, list[float]] = {}
    for number, reward in enumerate(rewards):
        if not math.isnan(reward):
            pooled.setdefault(cuts[number // each], []).append(reward)
    return [math.fsum(pooled[cut]) / len(pooled[cut]) if cut in pooled else math.nan for cut in cuts]
