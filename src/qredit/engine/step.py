"""One micro-batch of an optimiser step: its coefficients, its loss, and what stateful stages keep of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope, State
from qredit.core.objective import Credited, Objective
from qredit.engine.backward import Backward
from qredit.engine.collective import Collective
from qredit.engine.generation import Generation, Microbatch
from qredit.engine.learner import Learners
from qredit.engine.loss import MicrobatchLoss
from qredit.engine.scorer import Scorer
from qredit.engine.stage_state import StageState
from qredit.engine.step_credit import StepCredit
from qredit.rollouts.collate import Rows
from qredit.rollouts.trajectory import Trajectory


@dataclass(frozen=True)
class Place:
    """Where a micro-batch is in its generation.

    Attributes:
        use: how many micro-batches of the generation were learned from before it, over all its repeats.
        generations: how many generations its optimiser step spans, at least 1.
        complete: it is the last of its optimiser step.
        used_up: it is the last of its generation.
        off_policy: the weights have moved since the generation was sampled.
    """

    use: int
    generations: float = 1.0
    complete: bool = True
    used_up: bool = True
    off_policy: bool = False


@dataclass(frozen=True, eq=False)
class Learned:
    """What a micro-batch was learned from.

    Attributes:
        objective: the plain objective of that moment.
        batch: rows.batch with what the forward passes told.
        credited: the coefficients, where they were evaluated before the forward pass.
        state: that of stateful stages, before the step.
        logged: what learners say of their step, at the last micro-batch of an optimiser step.
        first: the rollouts of the first group; empty after a resume in the middle of a generation.
    """

    objective: Objective
    rows: Rows
    batch: RolloutBatch
    credited: Credited | None = None
    state: Mapping[str, State] = field(default_factory=dict)
    first: Sequence[Trajectory] = ()
    logged: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Step:
    """Learns from micro-batches, in the order of their generation.

    Where the coefficients are not known before, they are computed inside the loss, from the forward pass that is then
    differentiated: a pass of their own would cost as much again, and wrappers such as DDP allow one forward for each
    backward pass.
    """

    scorer: Scorer
    stages: StageState
    step_credit: StepCredit
    collective: Collective
    backward: Backward
    learners: Learners = field(default_factory=Learners)

    def take(
        self, model: nn.Module, objective: Objective, generation: Generation, place: Place
    ) -> tuple[Tensor, Learned]:
        """The loss of a micro-batch, for the caller to differentiate; moves stages and learners where a step ends.

        Args:
            model: the wrapped one.
            objective: the plain one of this moment.

        Returns:
            A scalar, whose gradient is added over the micro-batches of a step and averaged over processes; and what it
            was learned from.
        """
        micro = generation.microbatches[place.use % len(generation.microbatches)]
        credited, counts = self._credited(model, objective, generation, place, micro)
        state = self.stages.state
        batch, loss = MicrobatchLoss(
            self.scorer, model, objective, micro.rows, counts, state, self.backward, place.off_policy
        ).of(credited)
        self.stages.update(objective, batch, self.collective, place.complete, place.used_up)
        self.learners.see(micro.rows, batch)
        logged = self.learners.learn(self.scorer.forward(model), self.collective) if place.complete else {}
        return loss, Learned(objective, micro.rows, batch, credited, state, micro.first, logged)

    def _credited(
        self, model: nn.Module, objective: Objective, generation: Generation, place: Place, micro: Microbatch
    ) -> tuple[Credited | None, Mapping[str, float]]:
        """The coefficients of a micro-batch, where they are known before its loss, and what the loss divides by.

        The denominators are those of the current optimiser step, which may span several generations of equal size.
        """
        credited, counts = micro.credited, None
        if objective.scope == Scope.BATCH:

            def scored(rows: Rows) -> RolloutBatch:
                return self.scorer.scored_without_gradient(model, rows, place.off_policy)

            position = place.use % len(generation.microbatches)
            credited, counts = self.step_credit.at(position, generation, objective, scored)
        if counts is None:
            own = generation.denominators[place.use]
            counts = {name: place.generations * n for name, n in own.items()}
        return credited, counts
