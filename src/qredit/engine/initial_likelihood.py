"""What some prompts of a data set show of their likelihood before anything is learned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qredit.control.diagnostics import collect_likelihood_stats
from qredit.core.batch import RolloutBatch
from qredit.core.objective import Objective
from qredit.data.encoding import PROMPT_IDS
from qredit.engine.collation import Collator
from qredit.engine.collective import Collective
from qredit.engine.sampling import attach_row
from qredit.engine.step_log import concatenate_stats, move_to_cpu
from qredit.rollouts.collate import Rows
from qredit.rollouts.trajectory import Trajectory
from qredit.utils.seed import INITIAL_Q_STREAM


@dataclass(frozen=True)
class InitialLikelihood:
    """A look at prompts spread evenly over a data set, each process at its share; nothing is learned from them.

    Attributes:
        dataset: rows with the ids of prompt and answer.
        m: rollouts per prompt.
        at_once: prompts sampled and scored together.
        draw: (rows, ids of each prompt, a number that the seed depends on) → a trajectory for each.
        score: scores rows without gradient, by the weights as they are.
        seed: that of the run.
        most: prompts that are looked at, over all processes.
    """

    dataset: Any
    m: int
    at_once: int
    draw: Callable[[Sequence[Mapping[str, Any]], list[list[int]], int], list[Trajectory]]
    collator: Collator
    score: Callable[[Rows], RolloutBatch]
    seed: int
    most: int

    def facts(self, objective: Objective, collective: Collective) -> dict[str, Tensor]:
        """The likelihood facts of at most `most` prompts, over all processes."""
        prompts, world, rank = len(self.dataset), collective.size, collective.rank
        count = max(min(self.most, prompts) // world, 1) * world  # as many for each process
        own = [place * prompts // count for place in range(count)][rank::world]
        starts = range(0, len(own), self.at_once)
        found = [self._facts_of(own[start : start + self.at_once], start, objective) for start in starts]
        return concatenate_stats(collective.gather(found))

    def _facts_of(self, places: Sequence[int], number: int, objective: Objective) -> dict[str, Tensor]:
        inputs = [dict(self.dataset[place]) for place in places for _ in range(self.m)]
        drawn = self.draw(inputs, [row[PROMPT_IDS] for row in inputs], INITIAL_Q_STREAM + number)
        trajectories = [
            attach_row(one, row, index // self.m) for index, (row, one) in enumerate(zip(inputs, drawn, strict=True))
        ]
        rows = self.collator.rows(trajectories, self.seed, self.collator.vocabulary(trajectories))
        return move_to_cpu(collect_likelihood_stats(objective, self.score(rows)))
