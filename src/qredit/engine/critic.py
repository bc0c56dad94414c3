"""A critic on the policy's own states: a linear head that learns to tell, at each token, a reward of the rollout."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.credit.macro import generalized_advantage
from qredit.credit.turn import get_turn_values, segment_turns, turn_reward
from qredit.credit.turn_critic import keep_whole_rollouts
from qredit.engine.collective import Collective
from qredit.engine.learner import step_together
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.patch_forward import ScoreRequest

_STATES = ScoreRequest(hidden=True)


class Target(Protocol):
    """What a critic is fitted to.

    Attributes:
        needs: the batch fields that it reads beside spans, ids, turns and rewards.
    """

    @property
    def needs(self) -> Collection[str]: ...

    def __call__(self, batch: RolloutBatch) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """The number of each token, and the tokens that have one."""
        ...


@dataclass(frozen=True)
class OutcomeTarget:
    """The reward of the rollout, on each sampled token; none where it was not scored."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __call__(self, batch: RolloutBatch) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        reward = batch.require("reward", "the critic")[:, None]
        return reward.expand(batch.mask.shape), batch.sampled & ~reward.isnan()


@dataclass(frozen=True)
class RewardToCome:
    """G_k = r_k + discount · G_{k+1} on each sampled token of turn k: what the turns from this one on will have earned.

    A turn without a reward has reward 0. None on rollouts that were not scored, and on those without any turn's reward.

    Args:
        discount: γ, per turn.
    """

    discount: float
    needs: ClassVar[tuple[str, ...]] = ("turn_reward",)

    def __call__(self, batch: RolloutBatch) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        turns = segment_turns(batch, "the critic")
        reward, given = get_turn_values(turn_reward()(batch), turns, batch)
        # the advantage over a critic of 0, without a decay of the trace
        to_come = generalized_advantage(reward, torch.zeros_like(reward), turns.exists, self.discount, 1.0)
        return turns.spread(to_come), turns.spread(keep_whole_rollouts(given, turns))


class LinearCritic:
    """V_t = w · h_t + b, fitted by squared error to a number of each token; a `Learner` that fills `value`.

    Args:
        lr: of Adam.
        target: what it is fitted to.
    """

    name, fills = "critic", ("value",)

    def __init__(self, lr: float, target: Target = OutcomeTarget()) -> None:
        self.lr, self.target, self.needs = lr, target, target.needs
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
        targets = [self.target(one.batch) for one in rows]
        device = rows[0].batch.mask.device
        own = torch.tensor(float(sum(int(tokens.sum()) for _, tokens in targets)), device=device)
        count = float(collective.sum(own))
        if count == 0:  # Adam would move by what it remembers
            return {"loss": 0.0}
        total = torch.zeros((), device=device)
        for one, (wanted, tokens) in zip(rows, targets, strict=True):
            gap = self._values(one, forward) - wanted.float()
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
