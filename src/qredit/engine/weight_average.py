"""A reference that follows the policy: the exponential moving average of its weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qredit.engine.collective import Collective
from qredit.engine.reference_model import ReferenceModel
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows
from qredit.utils.errors import QreditError


class WeightAverage:
    """A `Learner` that fills `logp@NAME`: log-probabilities, in nats, under the average of the policy's weights.

        θ̄ ← rate · θ̄ + (1 - rate) · θ,   once an optimiser step, θ the policy before that step

    The average is made when rollouts are made for the first time, and is then the policy itself. It has no optimiser:
    every process takes the same average of the same weights.

    Args:
        teacher: NAME.
        rate: of what is kept, at least 0 and less than 1.
    """

    needs = ()

    def __init__(self, teacher: str, rate: float) -> None:
        self.name, self.fills, self.rate = f"average_{teacher}", (f"logp@{teacher}",), rate
        self._model: Any = None
        self._kept: Mapping[str, Any] | None = None

    def fill(self, rows: Rows, forward: Forward) -> Mapping[str, Tensor]:
        return {self.fills[0]: forward.scores(self._made(forward), rows)["logp"]}

    @torch.no_grad()
    def learn(self, rows: Sequence[Rows], forward: Forward, collective: Collective) -> Mapping[str, float]:
        """A step of the average; how far the policy was from it before, relative to the policy's length.

        Args:
            rows: not read.
            forward: knows the policy.
            collective: not read.
        """
        averages, weights = self._made(forward).parameters(), forward.policy.parameters()
        lengths = []  # read once: each number read by itself would wait for an accelerator
        for average, weight in zip(averages, weights, strict=True):
            lengths.append(torch.stack([(weight - average).square().sum(), weight.square().sum()]).double())
            average.lerp_(weight.to(average.dtype), 1 - self.rate)
        apart, whole = torch.stack(lengths).sum(0).tolist()
        return {"distance": (apart / whole) ** 0.5 if whole else 0.0}

    def state_dict(self) -> dict[str, Any]:
        if self._model is None:
            return {"model": {}} if self._kept is None else dict(self._kept)
        return {"model": self._model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Taken up when the average is made: only then is there a policy to make it of."""
        self._model = None
        self._kept = state if state["model"] else None

    def _made(self, forward: Forward) -> Any:
        if self._model is None:
            copied = ReferenceModel(forward.policy)
            if copied.adapted:
                raise QreditError(f"'{self.fills[0]}' is an average of whole weights; train without adapters")
            self._model = copied.model
            if self._kept is not None:
                self._model.load_state_dict(self._kept["model"])
                self._kept = None
        return self._model
