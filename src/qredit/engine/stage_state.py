"""The state of an objective's stateful stages over a run."""

from collections.abc import Iterable, Mapping
from typing import Any

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Cadence, Scope, State
from qredit.core.objective import Objective
from qredit.engine.collective import Collective
from qredit.engine.run_state import STAGES

UPDATE_CADENCES = (Cadence.STEP, Cadence.GENERATION)  # what the updates themselves show


class StageState:
    """The state of an objective's stateful stages, moved once for every optimiser step or generation.

    Attributes:
        state: by the stage's place.
        pending: what the step and the generation in progress add to it so far, on this process.
    """

    name = STAGES

    def __init__(self, objective: Objective) -> None:
        self.state: dict[str, State] = objective.init_state()
        self.pending: dict[str, State] = {}

    def begin(self, objective: Objective, scored: Iterable[RolloutBatch], collective: Collective) -> None:
        """Move what must see a whole generation before the first step on it.

        Args:
            objective: of this moment.
            scored: the micro-batches of the generation on this process, scored by the policy that sampled them; read
                only where some part waits for them.
            collective: the processes that train together.
        """
        if not objective.waits_for_rollouts(self.state):
            return
        sums: dict[str, State] = {}
        for batch in scored:
            accumulate_sums(sums, objective.statistics(batch, self.state, (Cadence.BEFORE,)))
        self._move(objective, sums, collective)

    def update(
        self, objective: Objective, batch: RolloutBatch, collective: Collective, complete: bool, used_up: bool
    ) -> None:
        """Collect what stateful stages need; move their state once the optimiser step is complete.

        Args:
            objective: of this moment.
            batch: the micro-batch, scored.
            collective: the processes that train together.
            complete: whether this is the last micro-batch of an optimiser step.
            used_up: whether this is the last micro-batch of a generation.
        """
        if not self.state:
            return
        # With a wider scope all rows were evaluated at once, and their sums are pending already (`step_credit.py`).
        if objective.scope < Scope.BATCH:
            accumulate_sums(self.pending, objective.statistics(batch, self.state, UPDATE_CADENCES))
        if complete:
            due = objective.places(UPDATE_CADENCES if used_up else (Cadence.STEP,))
            self._move(
                objective, {place: self.pending.pop(place) for place in due if place in self.pending}, collective
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"objective_state": self.state, "pending_statistics": self.pending}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a `state_dict`."""
        self.state, self.pending = state["objective_state"], state["pending_statistics"]

    def _move(self, objective: Objective, sums: dict[str, State], collective: Collective) -> None:
        everywhere: dict[str, State] = {}
        for part in collective.gather([sums]):
            accumulate_sums(everywhere, part)
        self.state = objective.update_state(self.state, everywhere)


def accumulate_sums(total: dict[str, State], part: Mapping[str, State]) -> None:
    """Add the sums of `part` to those of `total`, place by place."""
    for place, sums in part.items():
        known = total.setdefault(place, dict.fromkeys(sums, 0))
        for name, value in sums.items():
            known[name] += value
