"""A critic on the policy's own states: a linear head that learns to tell the reward of a rollout at each token."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.engine.collective import Collective
from qredit.engine.learner import step_together
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.patch_forward import ScoreRequest

_STATES = ScoreRequest(hidden=True)


class LinearCritic:
    """V_t = w · h_t + b, fitted by squared error to the reward of the row; a `Learner` that fills `value`.

    Args:
        lr: of Adam.
    """

    name, fills, needs = "critic", ("value",), ()

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self._head: torch.nn.Linear | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    def fill(self, rows: Rows, forward: Forward) -> Mapping[str, Tensor]:
        return {"value": torch.where(rows.batch.mask, self._values(rows, forward), 0.0)}

    def learn(self, rows: Sequence[Rows], forward: Forward, collective: Collective) -> Mapping[str, float]:
        """A step of Adam; its loss before it.

        Args:
            rows: of the optimiser step on this process, by micro-batch.
            forward: runs the policy, without gradient.
            collective: the processes that train together; sums and gradients are over all of them.
        """
        counted = [one.batch.sampled & ~_reward(one).isnan()[:, None] for one in rows]
        device = rows[0].batch.mask.device
        count = float(collective.sum(torch.tensor(float(sum(int(tokens.sum()) for tokens in counted)), device=device)))
        if count == 0:  # Adam would move by what it remembers
            return {"loss": 0.0}
        total = torch.zeros((), device=device)
        for one, tokens in zip(rows, counted, strict=True):
            gap = self._values(one, forward) - _reward(one)[:, None].float()
            total = total + torch.where(tokens, gap, 0.0).square().sum() / count
        total.backward()
        assert self._optimizer is not None
        step_together(self._optimizer, collective)
        return {"loss": float(collective.sum(total.detach()))}

    def state_dict(self) -> dict[str, Any]:
        if self._head is None or self._optimizer is None:
            return {"head": {}, "optimizer": {}}
        return {"head": self._head.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self._head = self._optimizer = None
        if state["head"]:
            head, optimizer = self._made(state["head"]["weight"].shape[1], state["head"]["weight"].device)
            head.load_state_dict(state["head"])
            optimizer.load_state_dict(state["optimizer"])

    def _values(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T"]:
        states = forward.scores(forward.model, rows, _STATES)["hidden"].float()
        head, _ = self._made(states.shape[-1], states.device)
        values: Tensor = head(states)[..., 0]
        return values

    def _made(self, width: int, device: torch.device) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        """The head and its optimiser, on the first call as every process begins with them: all values are 0."""
        if self._head is None or self._optimizer is None:
            self._head = torch.nn.Linear(width, 1).to(device)
            torch.nn.init.zeros_(self._head.weight)
            torch.nn.init.zeros_(self._head.bias)
            self._optimizer = torch.optim.Adam(self._head.parameters(), lr=self.lr)
        return self._head, self._optimizer


def _reward(rows: Rows) -> Float[Tensor, " B"]:
    return rows.batch.require("reward", "the critic")
