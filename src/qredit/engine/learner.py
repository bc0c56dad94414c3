"""Models that learn beside the policy and fill batch fields: critics, implicit reward models."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import FORWARD_FIELDS
from qredit.core.field_names import field_kind
from qredit.engine.collective import Collective
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows
from qredit.utils.errors import QreditError
from qredit.utils.stateful import Stateful


class Learner(Stateful, Protocol):
    """A model with an optimiser and a loss of its own, whose outputs are batch fields.

    It fills its fields when rollouts are made, after teachers and before any credit. It learns once for every optimiser
    step of the policy: after all losses of that step were computed, before the policy moves. So the fields of a
    generation are those of the learner as it was before the first step on it, and neither step reads what the other
    has just changed. Its state is checkpointed with the policy's, in a file of each process.

    Attributes:
        name: a word, such as `critic`: of its file in a checkpoint and of what it logs.
        fills: the batch fields that it fills.
        needs: the batch fields that it reads beside spans, ids and rewards, such as `logp@reference`; those that are
            known when rollouts are made.
    """

    @property
    def fills(self) -> Collection[str]: ...

    @property
    def needs(self) -> Collection[str]: ...

    def fill(self, rows: Rows, forward: Forward) -> Mapping[str, Tensor]:
        """Its fields for these rows, (B,) or (B, T, …), on the rows' device.

        Args:
            rows: of a micro-batch.
            forward: runs the policy, or a model of the learner's own, over rows; without gradient.
        """

    def learn(self, rows: Sequence[Rows], forward: Forward, collective: Collective) -> Mapping[str, float]:
        """A step of its optimiser; what is logged of it.

        Called by all processes alike, which must end with the same weights: `step_together` is for that.

        Args:
            rows: of the optimiser step on this process, by micro-batch; their batches hold what its passes told.
            forward: runs the policy, or a model of its own, without gradient.
            collective: the processes that train together.
        """


class Learners:
    """The learners of a run, and the rows of the optimiser step in progress.

    Raises:
        QreditError: two of one name, a name that is no word, two that fill one field, a need that is told too late.
    """

    def __init__(self, learners: Sequence[Learner] = ()) -> None:
        self.learners = learners
        self._rows: list[Rows] = []
        names = [learner.name for learner in learners]
        filled = [name for learner in learners for name in learner.fills]
        for name in names:
            if not name.isidentifier() or names.count(name) > 1:
                raise QreditError(
                    f"learners: each has a word of its own as its name; got {', '.join(map(repr, names))}"
                )
        for name in filled:
            if filled.count(name) > 1:
                raise QreditError(f"learners: the batch field '{name}' is filled by more than one")
        for learner in learners:
            late = sorted(name for name in learner.needs if field_kind(name) in FORWARD_FIELDS)
            if late:
                raise QreditError(
                    f"learners: '{learner.name}' needs '{late[0]}', which is told only when the policy learns; run the "
                    "policy in `fill` and `learn` by their argument `forward`"
                )

    @property
    def fills(self) -> frozenset[str]:
        return frozenset(name for learner in self.learners for name in learner.fills)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(name for learner in self.learners for name in learner.needs)

    def check_read(self, needs: Collection[str]) -> None:
        """Refuse a learner that would learn for nobody.

        Args:
            needs: of the objective.

        Raises:
            QreditError: names the learner and its fields.
        """
        read = {*needs, *self.needs}
        for learner in self.learners:
            if not read & set(learner.fills):
                raise QreditError(
                    f"learners: nothing reads what '{learner.name}' fills ({', '.join(sorted(learner.fills))}); leave "
                    "it out, or take an objective that reads it"
                )

    def filled(self, rows: Rows, forward: Forward) -> Rows:
        """The rows with the fields of every learner, later ones given those of earlier ones."""
        for learner in self.learners:
            with torch.no_grad():
                found = learner.fill(rows, forward)
            missing = sorted(set(learner.fills) - set(found))
            if missing:
                raise QreditError(f"learners: '{learner.name}' did not fill '{missing[0]}'")
            extra = {**rows.batch.extra, **{name: found[name].detach() for name in learner.fills}}
            rows = replace(rows, batch=replace(rows.batch, extra=extra))
        return rows

    def observe(self, rows: Rows, batch: RolloutBatch) -> None:
        """Keep a micro-batch of the step in progress.

        Args:
            batch: that of the rows, with what their passes told.
        """
        if self.learners:
            self._rows.append(replace(rows, batch=_constant(batch)))

    def learn(self, forward: Forward, collective: Collective) -> dict[str, float]:
        """A step of each, in order; what is logged, under the learner's name."""
        rows, self._rows = self._rows, []
        logged: dict[str, float] = {}
        for learner in self.learners:
            with torch.enable_grad(), _exactly(rows):
                told = learner.learn(rows, forward, collective)
            logged |= {f"{learner.name}/{key}": value for key, value in told.items()}
        return logged


@dataclass(frozen=True)
class LearnerFile:
    """A learner as a checkpoint keeps it, which must hold its state."""

    learner: Learner

    @property
    def name(self) -> str:
        return f"learner_{self.learner.name}"

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        if not state:
            raise QreditError(
                f"the checkpoint holds no state of the learner '{self.learner.name}' for this process: the run began "
                "without it, or with fewer processes"
            )
        self.learner.load_state_dict(state)


def step_together(
    optimizer: torch.optim.Optimizer, collective: Collective, largest_norm: float = math.inf
) -> Float[Tensor, ""]:
    """The optimiser's step by the gradients of all processes, summed; every process ends with the same weights.

    The loss of each is to be divided by a count over all processes, so that the sum is the gradient of one mean.

    Args:
        optimizer: whose parameters have the gradients of this process.
        collective: the processes that train together.
        largest_norm: a longer sum is scaled to this length.

    Returns:
        The length of the sum, before it is scaled.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = collective.sum(own)
    norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, largest_norm)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def _constant(batch: RolloutBatch) -> RolloutBatch:
    """The batch without the graph of the pass that told it."""
    extra = {name: value.detach() for name, value in batch.extra.items()}
    return replace(batch, entropy=None if batch.entropy is None else batch.entropy.detach(), extra=extra)


def _exactly(rows: Sequence[Rows]) -> AbstractContextManager[Any]:
    """Without the autocast that an engine may have set up around the policy's loss."""
    return torch.autocast(rows[0].batch.mask.device.type, enabled=False)
