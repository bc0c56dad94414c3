"""A generation: the micro-batches of its rollouts, and what the optimiser steps on them divide by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qredit.core.objective import Credited
from qredit.rollouts.collate import Rows
from qredit.rollouts.trajectory import Trajectory


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
    first: Sequence[Trajectory] = ()


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
