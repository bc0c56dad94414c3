"""What a whole optimiser step or generation shares: denominators, and statistics over all its rows on all processes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from qredit.core.batch import RolloutBatch, concatenate
from qredit.core.chain import Cadence, Scope, State
from qredit.core.objective import Credited, Objective
from qredit.engine.state import STAGES
from qredit.rollouts.collate import Rows, Sampled

DURING = (Cadence.STEP, Cadence.GENERATION)  # what the updates themselves show


@dataclass(frozen=True, eq=False)
class Microbatch:
    """What one forward and backward pass learns from: whole groups, padded.

    Attributes:
        rows: ids and batch.
        credited: coefficients that were fixed before the first update; None when they are computed at each.
        first: the rollouts of the first group, for records; not kept in checkpoints.
    """

    rows: Rows
    credited: Credited | None = None
    first: Sequence[Sampled] = ()


@dataclass(frozen=True, eq=False)
class Generation:
    """The rollouts of one generation.

    Attributes:
        microbatches: in the order they are used.
        denominators: for each micro-batch position, what the optimiser step it falls into divides by, per process.
        made_at: optimiser steps done when it was sampled; later steps on it are off-policy.
    """

    microbatches: Sequence[Microbatch]
    denominators: Sequence[Mapping[str, float]]
    made_at: int


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

    def begin(self, objective: Objective, scored: Iterable[RolloutBatch], accelerator: Accelerator) -> None:
        """Move what must see a whole generation before the first step on it.

        Args:
            scored: the micro-batches of the generation on this process, scored by the policy that sampled them; read
                only where some part waits for them.
        """
        if not objective.waits_for_rollouts(self.state):
            return
        sums: dict[str, State] = {}
        for batch in scored:
            add_into(sums, objective.statistics(batch, self.state, (Cadence.BEFORE,)))
        self._move(objective, sums, accelerator)

    def update(self, objective: Objective, batch: RolloutBatch, accelerator: Accelerator, used_up: bool) -> None:
        """Collect what stateful stages need; move their state once the optimiser step is complete.

        Args:
            used_up: whether this is the last micro-batch of a generation.
        """
        if not self.state:
            return
        if objective.scope < Scope.BATCH:
            add_into(self.pending, objective.statistics(batch, self.state, DURING))
        if accelerator.sync_gradients:
            due = objective.places(DURING if used_up else (Cadence.STEP,))
            self._move(
                objective, {place: self.pending.pop(place) for place in due if place in self.pending}, accelerator
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"objective_state": self.state, "pending_statistics": self.pending}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a `state_dict`."""
        self.state, self.pending = state["objective_state"], state["pending_statistics"]

    def _move(self, objective: Objective, sums: dict[str, State], accelerator: Accelerator) -> None:
        everywhere: dict[str, State] = {}
        for part in gather_object([sums]):
            add_into(everywhere, part)
        self.state = objective.update_state(self.state, everywhere)


class StepCredit:
    """Coefficients where a stage's statistics run over the whole optimiser step.

    At the step's first micro-batch all of them are scored without gradient, gathered from every process, evaluated
    together and cut apart again: the result does not depend on how the step is cut up.

    Args:
        window: micro-batches of a step.
    """

    def __init__(self, window: int, stages: StageState, accelerator: Accelerator) -> None:
        self.window, self.stages, self.accelerator = window, stages, accelerator
        self._credited: list[Credited] = []

    def at(
        self, position: int, generation: Generation, objective: Objective, scored: Callable[[Rows], RolloutBatch]
    ) -> tuple[Credited, Mapping[str, float] | None]:
        """The coefficients of a micro-batch, and the denominators of its step where they follow from coefficients.

        Args:
            position: that of the micro-batch in its generation.
            scored: scores rows without gradient.
        """
        first = position - position % self.window
        micro = generation.microbatches[first : first + self.window]
        if position == first or not self._credited:
            local = [scored(m.rows) for m in micro]
            self._credited, statistics = evaluated_together(objective, local, self.stages.state, self.accelerator)
            if self.accelerator.is_main_process:  # they are of all rows on all processes
                add_into(self.stages.pending, statistics)
        credited = self._credited[position - first]
        if credited.weight is None and not objective.counts_coefficients:
            return credited, None
        counts = [objective.denominators(m.rows.batch, c) for m, c in zip(micro, self._credited, strict=True)]
        return credited, shared_denominators(counts, self.window, 1, self.accelerator)[0]


def credited_once(
    microbatches: Sequence[Microbatch],
    objective: Objective,
    stages: StageState,
    accelerator: Accelerator,
    scored: Callable[[Rows], RolloutBatch],
) -> list[Microbatch]:
    """The micro-batches of a new generation with their coefficients, its rows on all processes evaluated together.

    Args:
        scored: scores rows without gradient.
    """
    local = [scored(micro.rows) for micro in microbatches]
    credited, statistics = evaluated_together(objective, local, stages.state, accelerator)
    if accelerator.is_main_process:
        add_into(stages.pending, statistics)
    return [replace(micro, credited=own) for micro, own in zip(microbatches, credited, strict=True)]


def shared_denominators(
    counts: Sequence[Mapping[str, float]], accumulated: int, repeats: int, accelerator: Accelerator
) -> list[dict[str, float]]:
    """For each micro-batch position of a generation, the denominators of the optimiser step it falls into.

    Summed over the step's micro-batches and all processes, divided by the number of processes because their gradients
    are averaged.

    Args:
        counts: what each micro-batch of this process counts.
        accumulated: micro-batches per optimiser step. If a generation has fewer, a step spans several generations, and
            the sum here is that of one generation.
        repeats: how often the generation is used (num_iterations).
    """
    names = sorted(counts[0])
    table = torch.tensor([[count[name] for name in names] for count in counts], dtype=torch.float64)
    table = accelerator.reduce(table.to(accelerator.device), "sum").cpu() / accelerator.num_processes
    window = min(accumulated, len(counts) * repeats)
    steps = table.repeat(repeats, 1).view(-1, window, len(names)).sum(1)
    return [dict(zip(names, row, strict=True)) for row in steps.repeat_interleave(window, 0).tolist()]


def evaluated_together(
    objective: Objective, local: Sequence[RolloutBatch], state: Mapping[str, State], accelerator: Accelerator
) -> tuple[list[Credited], dict[str, State]]:
    """The objective on the rows of all micro-batches and processes at once.

    Returns:
        The coefficients of the local rows, and what stateful stages need of all of them.
    """
    everywhere = gather_object([batch.to("cpu") for batch in local])
    whole = concatenate(everywhere)
    credited = objective.evaluate(whole, state)
    ends = torch.tensor([len(batch.mask) for batch in everywhere]).cumsum(0).tolist()
    parts = []
    for number, batch in enumerate(local, start=accelerator.process_index * len(local)):
        rows, width = batch.mask.shape
        own = credited.select(slice(ends[number] - rows, ends[number]))
        parts.append(own.narrow(width).to(batch.mask.device))
    return parts, objective.statistics(whole, state, DURING) if state else {}


def add_into(total: dict[str, State], part: Mapping[str, State]) -> None:
    """Add the sums of `part` to those of `total`, place by place."""
    for place, sums in part.items():
        known = total.setdefault(place, dict.fromkeys(sums, 0))
        for name, value in sums.items():
            known[name] += value
