"""Coefficients and denominators that a whole step or generation shares, over all its rows on all processes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from qredit.core.batch import RolloutBatch, concatenate
from qredit.core.chain import State
from qredit.core.objective import Credited, Objective
from qredit.engine.collective import Collective
from qredit.engine.generation import Generation, Microbatch
from qredit.engine.stage_state import UPDATE_CADENCES, StageState, accumulate_sums
from qredit.rollouts.collate import Rows


class StepCredit:
    """Coefficients where a stage's statistics run over the whole optimiser step.

    At the step's first micro-batch all of them are scored without gradient, gathered from every process, evaluated
    together and cut apart again: the result does not depend on how the step is cut up.

    Args:
        window: micro-batches of a step.
    """

    def __init__(self, window: int, stages: StageState, collective: Collective) -> None:
        self.window, self.stages, self.collective = window, stages, collective
        self._coefficients: list[Credited] = []

    def at(
        self, position: int, generation: Generation, objective: Objective, scored: Callable[[Rows], RolloutBatch]
    ) -> tuple[Credited, Mapping[str, float] | None]:
        """The coefficients of a micro-batch, and the denominators of its step where they follow from coefficients.

        Args:
            position: that of the micro-batch in its generation.
            generation: the rollouts in use.
            objective: of this moment; its scope is BATCH.
            scored: scores rows without gradient.
        """
        first = position - position % self.window
        micro = generation.microbatches[first : first + self.window]
        if position == first or not self._coefficients:
            # With the weights before the step, which none of its micro-batches moves: so one evaluation serves all.
            local = [scored(m.rows) for m in micro]
            self._coefficients, statistics = evaluate_across_ranks(objective, local, self.stages.state, self.collective)
            if self.collective.rank == 0:  # they are of all rows on all processes
                accumulate_sums(self.stages.pending, statistics)
        credited = self._coefficients[position - first]
        # Only a weight or a penalty that counts coefficients makes denominators depend on them. Else they were known
        # when the generation was made.
        if credited.weight is None and not objective.counts_coefficients:
            return credited, None
        counts = [objective.denominators(m.rows.batch, c) for m, c in zip(micro, self._coefficients, strict=True)]
        return credited, compute_step_denominators(counts, self.window, 1, self.collective)[0]


def credit_generation(
    microbatches: Sequence[Microbatch],
    objective: Objective,
    stages: StageState,
    collective: Collective,
    scored: Callable[[Rows], RolloutBatch],
) -> list[Microbatch]:
    """The micro-batches of a new generation with their coefficients, its rows on all processes evaluated together.

    Args:
        microbatches: of this process.
        objective: of this moment; its scope is GENERATION.
        stages: state of stateful stages; gets their sums.
        collective: the processes that train together.
        scored: scores rows without gradient.
    """
    local = [scored(micro.rows) for micro in microbatches]
    credited, statistics = evaluate_across_ranks(objective, local, stages.state, collective)
    if collective.rank == 0:
        accumulate_sums(stages.pending, statistics)
    return [replace(micro, credited=own) for micro, own in zip(microbatches, credited, strict=True)]


def compute_step_denominators(
    counts: Sequence[Mapping[str, float]], accumulated: int, repeats: int, collective: Collective
) -> list[dict[str, float]]:
    """For each micro-batch position of a generation, the denominators of the optimiser step it falls into.

    Summed over the step's micro-batches and all processes, divided by the number of processes because their gradients
    are averaged.

    Args:
        counts: what each micro-batch of this process counts.
        accumulated: micro-batches per optimiser step. If a generation has fewer, a step spans several generations, and
            the sum here is that of one generation.
        repeats: how often the generation is used (num_iterations).
        collective: the processes that train together.
    """
    names = sorted(counts[0])
    table = torch.tensor([[count[name] for name in names] for count in counts], dtype=torch.float64)
    # float64, in which sums of counts are exact whatever the order
    table = collective.sum(table) / collective.size
    window = min(accumulated, len(counts) * repeats)
    steps = table.repeat(repeats, 1).view(-1, window, len(names)).sum(1)
    return [dict(zip(names, row, strict=True)) for row in steps.repeat_interleave(window, 0).tolist()]


def evaluate_across_ranks(
    objective: Objective, local: Sequence[RolloutBatch], state: Mapping[str, State], collective: Collective
) -> tuple[list[Credited], dict[str, State]]:
    """The objective on the rows of all micro-batches and processes at once.

    Args:
        objective: of this moment.
        local: the scored micro-batches of this process; all processes have as many.
        state: explicit state of stateful stages, by their place.
        collective: the processes that train together.

    Returns:
        The coefficients of the local rows, and what stateful stages need of all of them.
    """
    # Ragged batches of objects are gathered, and those travel by way of the CPU. Each process then evaluates all rows:
    # nothing needs to be sent back, and all see the same numbers.
    everywhere = collective.gather([batch.to("cpu") for batch in local])
    whole = concatenate(everywhere)
    credited = objective.evaluate(whole, state)
    ends = torch.tensor([len(batch.mask) for batch in everywhere]).cumsum(0).tolist()
    parts = []
    # The rows of process 0 come first, micro-batch by micro-batch; all were padded to one width.
    for number, batch in enumerate(local, start=collective.rank * len(local)):
        rows, width = batch.mask.shape
        own = credited.select(slice(ends[number] - rows, ends[number]))
        parts.append(own.narrow(width).to(batch.mask.device))
    return parts, objective.statistics(whole, state, UPDATE_CADENCES) if state else {}
