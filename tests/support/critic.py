"""A critic for the tests: the reward of each token's row, predicted from the policy's state at the token."""

from dataclasses import dataclass, replace

import torch

from qredit.core.chain import Credit
from qredit.engine.learner import step_together
from qredit.shared_prefix.patch_forward import ScoreRequest


@dataclass(frozen=True)
class less_value(Credit):
    """c_t ← c - value_t."""

    needs = frozenset({"value"})

    def __call__(self, coefficient, batch):
        return replace(coefficient, value=coefficient.value - batch.require("value", str(self)).double())


class Critic:
    """value_t = w · h_t + b, fitted by squared error to the reward of the row."""

    name, fills, needs = "critic", ("value",), ()

    def __init__(self, width, rate=0.1):
        self.head = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.constant_(self.head.bias, 2.0)
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=rate)
        self.filled, self.learned = 0, []

    def values(self, rows, forward):
        hidden = forward.scores(forward.model, rows, ScoreRequest(hidden=True))["hidden"]
        return self.head(hidden)[..., 0]

    def fill(self, rows, forward):
        self.filled += 1
        return {"value": torch.where(rows.batch.mask, self.values(rows, forward), 0.0)}

    def learn(self, rows, forward, collective):
        self.learned.append(rows)
        counted = [one.batch.sampled & ~one.batch.reward.isnan()[:, None] for one in rows]
        count = float(collective.sum(torch.tensor(float(sum(tokens.sum() for tokens in counted)))))
        total = torch.zeros(())
        for one, tokens in zip(rows, counted, strict=True):
            gap = self.values(one, forward) - one.batch.reward[:, None].float()
            total = total + torch.where(tokens, gap, 0.0).square().sum() / count
        total.backward()
        step_together(self.optimizer, collective)
        return {"loss": float(collective.sum(total.detach()))}

    def state_dict(self):
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])


OBJECTIVE = "on_span('sampled', reward() | tests.support.critic.less_value())"
