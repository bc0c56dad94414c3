"""Rewards of turns by regression: a function of what is told of each turn, whose sum is the reward of the episode.

r_k = f(φ_k),   L = mean over scored episodes of (Σ_k f(φ_k) - R)²
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qredit.core.field_names import TURN_FEATURE_PREFIX
from qredit.engine.collective import Collective
from qredit.engine.learner import step_together
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows
from qredit.stats.segment import Segments
from qredit.utils.errors import QreditError

_SEED = 0  # of the first weights: every process and every run begins with the same


class ReturnRedistribution:
    """A `Learner` that fills `turn_reward` with f(φ_k), φ_k the fields `turn_feature@0`, … on the tokens of turn k.

    f has `layers` linear layers with ReLU between them and is learned by Adam. Its last layer begins at 0, and so does
    every reward.

    Args:
        features: how many numbers tell of a turn.
        lr: of Adam.
        layers: 1 makes f linear.
        width: of the layers between.
        updates: steps of Adam in each optimiser step of the policy, all on that step's episodes.
    """

    name, fills = "redistributed_return", ("turn_reward",)

    def __init__(self, features: int, lr: float, layers: int, width: int, updates: int) -> None:
        self.needs = tuple(f"{TURN_FEATURE_PREFIX}{number}" for number in range(features))
        self.updates = updates
        self._net = _make_net(features, layers, width)
        self._optimizer = torch.optim.Adam(self._net.parameters(), lr=lr)

    def fill(self, rows: Rows, forward: Forward) -> Mapping[str, Tensor]:
        turns, features = self._read(rows)
        return {"turn_reward": turns.spread(self._predict(features))}

    def learn(self, rows: Sequence[Rows], forward: Forward, collective: Collective) -> Mapping[str, float]:
        """Steps of Adam; the loss before them, and the variance of the rewards, which a constant sum would leave.

        Args:
            rows: of the optimiser step on this process, by micro-batch.
            forward: not needed.
            collective: the processes that train together; sums and gradients are over all of them.
        """
        read = [(*self._read(one), *_find_outcomes(one)) for one in rows]
        rewards = torch.cat([reward[scored] for _, _, reward, scored in read])
        count, total, squares = collective.sum(
            torch.stack([torch.ones_like(rewards).sum(), rewards.sum(), rewards.square().sum()])
        ).tolist()
        if count == 0:  # Adam would move by what it remembers
            return {"loss": 0.0, "variance": 0.0}
        first = torch.zeros(())
        for update in range(self.updates):
            loss = torch.stack([self._sum_squares(*one) / count for one in read]).sum()
            loss.backward()
            step_together(self._optimizer, collective)
            first = loss.detach() if update == 0 else first
        return {"loss": float(collective.sum(first)), "variance": max(squares / count - (total / count) ** 2, 0.0)}

    def state_dict(self) -> dict[str, Any]:
        return {"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Raises QreditError for weights of other shapes than this run's."""
        kept, own = (_list_shapes(weights) for weights in (state["net"], self._net.state_dict()))
        if kept != own:
            raise QreditError(
                f"the checkpoint's '{self.name}' has layers of {kept}, this run's has layers of {own}: the number of "
                "features, layers or their width is another"
            )
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _read(self, rows: Rows) -> tuple[Segments, Float[Tensor, "B S F"]]:
        """The turns of each row, those of a shared beginning and their observations among them, and φ of each."""
        batch = rows.batch
        self._move(batch.mask.device)
        turns = Segments.of(batch.require("turn", self.name), batch.mask)
        values = [turns.at_first(batch.require(name, self.name).float()) for name in self.needs]
        return turns, torch.stack(values, dim=-1)

    def _predict(self, features: Float[Tensor, "B S F"]) -> Float[Tensor, "B S"]:
        found: Tensor = self._net(features)[..., 0]
        return found

    def _sum_squares(
        self,
        turns: Segments,
        features: Float[Tensor, "B S F"],
        reward: Float[Tensor, " B"],
        scored: Bool[Tensor, " B"],
    ) -> Float[Tensor, ""]:
        """Σ (Σ_k f(φ_k) - R)² over the scored rows.

        Args:
            turns: of each row.
            features: φ of each turn.
            reward: R.
            scored: rows that count.
        """
        told = torch.where(turns.exists, self._predict(features), 0.0).sum(1)
        return torch.where(scored, told - reward, 0.0).square().sum()

    def _move(self, device: torch.device) -> None:
        """To where the rows are, with what Adam remembers."""
        if next(self._net.parameters()).device != device:
            self._net.to(device)
            self._optimizer.load_state_dict(self._optimizer.state_dict())


def _make_net(features: int, layers: int, width: int) -> nn.Sequential:
    """f, whose values are all 0.

    Args:
        features: numbers that it reads.
        layers: linear ones.
        width: of those between.
    """
    sizes = [features, *[width] * (layers - 1), 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        linear = [nn.Linear(before, after) for before, after in pairwise(sizes)]
    for part in (linear[-1].weight, linear[-1].bias):
        nn.init.zeros_(part)
    return nn.Sequential(*[part for layer in linear[:-1] for part in (layer, nn.ReLU())], linear[-1])


def _find_outcomes(rows: Rows) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """R of each row, 0 where it does not count, and which rows count: scored ones that end as they were sampled."""
    reward = rows.batch.require("reward", ReturnRedistribution.name)
    scored = ~reward.isnan() & ~rows.batch.has_answer
    return torch.where(scored, reward, 0.0).float(), scored


def _list_shapes(weights: Mapping[str, Tensor]) -> str:
    return ", ".join("x".join(map(str, value.shape[::-1])) for value in weights.values() if value.dim() == 2)
