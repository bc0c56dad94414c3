"""From sampled rollouts to a generation: rows, what is fixed before the first step on them, and denominators."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope, When
from qredit.core.objective import Objective
from qredit.engine.collation import Collator
from qredit.engine.collective import Collective
from qredit.engine.generation import Generation, Microbatch
from qredit.engine.scorer import Scorer
from qredit.engine.stage_state import StageState
from qredit.engine.step import evaluate_objective
from qredit.engine.step_credit import compute_step_denominators, credit_generation
from qredit.rollouts.collate import Rows
from qredit.rollouts.trajectory import Trajectory
from qredit.utils.seed import derive_seed


@dataclass(frozen=True, eq=False)
class GenerationMaker:
    """Makes generations for one process.

    Attributes:
        rollouts: rows of the data in a micro-batch, whole groups.
        window: micro-batches of an optimiser step.
        repeats: how often a generation is learned from.
        seed: of the run.
    """

    collator: Collator
    scorer: Scorer
    stages: StageState
    collective: Collective
    rollouts: int
    window: int
    repeats: int
    seed: int

    def make(
        self, model: nn.Module, trajectories: Sequence[Trajectory], objective: Objective, made_at: int, m: int
    ) -> Generation:
        """The generation of these rollouts.

        Args:
            model: the wrapped one.
            trajectories: sampled rollouts, in order.
            objective: of this moment.
            made_at: optimiser steps done.
            m: rollouts per prompt.
        """
        vocabulary = self.collator.vocabulary(trajectories)
        starts = range(0, len(trajectories), self.rollouts)
        parts = [trajectories[start : start + self.rollouts] for start in starts]
        microbatches = [self.make_microbatch(model, part, objective, vocabulary, made_at, m) for part in parts]

        def scored(rows: Rows) -> RolloutBatch:
            """As the policy that has just sampled them scores them."""
            return self.scorer.score_batch_no_grad(model, rows, self.collator.sampler_differs)

        if self.scorer.policy().training:  # a wrapper keeps the mode it was made in
            self.stages.begin(objective, (scored(micro.rows) for micro in microbatches), self.collective)
        if objective.scope == Scope.GENERATION:
            microbatches = credit_generation(microbatches, objective, self.stages, self.collective, scored)
        counts = [objective.denominators(micro.rows.batch, micro.credited) for micro in microbatches]
        denominators = compute_step_denominators(counts, self.window, self.repeats, self.collective)
        return Generation(microbatches, denominators, made_at)

    def make_microbatch(
        self,
        model: nn.Module,
        trajectories: Sequence[Trajectory],
        objective: Objective,
        vocabulary: Tensor | None,
        made_at: int,
        m: int,
    ) -> Microbatch:
        """The rows of some rollouts, with the coefficients that an objective fixes when they are sampled.

        Args:
            model: in its wrappers (DDP, PEFT), so that their hooks run.
            trajectories: whole groups.
            objective: of this moment.
            vocabulary: (V,) ids that occur in the generation, where prediction errors are asked for.
            made_at: optimiser steps done; the seed of stages depends on it.
            m: rollouts per prompt.
        """
        made = self.collator.rows(trajectories, derive_seed(self.seed, made_at), vocabulary)
        rows = self.collator.add_forward_fields(model, made, trajectories)
        fixed = objective.when == When.ROLLOUT and objective.scope < Scope.BATCH
        credited = evaluate_objective(objective, rows.batch, self.stages.state) if fixed else None
        return Microbatch(rows, credited, first=trajectories[:m])
