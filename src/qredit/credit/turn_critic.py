"""Advantages over turns and over the tokens inside them, against a critic: `value` (B, T), its estimate at each token.

The estimate at a token is of the state before it: what the critic expects of the rest of the episode. Text of tools
between two turns is skipped: after a turn's last token comes the next turn's first. Behind the last turn the estimate
is 0.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.schedule import check_range
from qredit.credit.macro import generalized_advantage
from qredit.credit.turn import TurnCredit, get_turn_values, segment_turns
from qredit.stats.segment import Segments


def read_critic(batch: RolloutBatch, wanted_by: str) -> Float[Tensor, "B T"]:
    """The critic's estimates."""
    return batch.require("value", wanted_by).double()


def keep_whole_rollouts(keep: Bool[Tensor, "B S"], turns: Segments) -> Bool[Tensor, "B S"]:
    """All turns of the rollouts of which some turn counts: a critic has an estimate also where no reward is."""
    return turns.exists & keep.any(1, keepdim=True)


@dataclass(frozen=True)
class _CriticCredit(TurnCredit):
    """What the stages that compare a turn's reward with a critic share."""

    discount: float
    trace_decay: float
    needs = frozenset({"turn", "value"})

    def __post_init__(self) -> None:
        check_range("discount", self.discount, 0.0, 1.0)
        check_range("trace_decay", self.trace_decay, 0.0, 1.0)


@dataclass(frozen=True)
class turn_advantage(_CriticCredit):
    """c_k ← A_k = δ_k + γ λ A_{k+1}, δ_k = c_k + γ V_{k+1} - V_k, V_k the estimate at the turn's first token.

    A turn that does not count has reward 0. From here on all turns of a rollout count if one of them did.

    Args:
        discount: γ, per turn.
        trace_decay: λ, per turn.
    """

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        critic = turns.at_first(read_critic(batch, str(self)))
        advantage = generalized_advantage(value, critic, turns.exists, self.discount, self.trace_decay)
        return advantage, keep_whole_rollouts(keep, turns)


@dataclass(frozen=True)
class turn_return(_CriticCredit):
    """c_k ← A_k + V_k, A_k as in `turn_advantage`, V_k the estimate at the turn's *last* token.

    What the turn's last token leads to, for an estimate inside the turn: `token_advantage(…, turn_discount=0)`.

    Args:
        discount: γ, per turn.
        trace_decay: λ, per turn.
    """

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        critic = turns.at_last(read_critic(batch, str(self)))
        advantage = generalized_advantage(value, critic, turns.exists, self.discount, self.trace_decay)
        return advantage + critic, keep_whole_rollouts(keep, turns)


@dataclass(frozen=True)
class token_advantage(Credit):
    """c_t ← A_t = δ_t + γ_t λ A_{t+1}, δ_t = r_t + γ_t V_{t+1} - V_t, over the sampled tokens of a rollout's turns.

    r_t is the turn's c_k on its last token and 0 before it. γ_t is `turn_discount` on the last token of a turn and
    `discount` on the others. With turn_discount 0 every turn is an episode of its own. A turn that does not count has
    reward 0. From here on all turns of a rollout count if one of them did.

    Args:
        discount: γ inside a turn.
        trace_decay: λ, per token.
        turn_discount: γ from the last token of a turn to the next turn.
    """

    discount: float
    trace_decay: float
    turn_discount: float
    needs = frozenset({"turn", "value"})

    def __post_init__(self) -> None:
        for name in ("discount", "trace_decay", "turn_discount"):
            check_range(name, getattr(self, name), 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        turns = segment_turns(batch, str(self))
        value, keep = get_turn_values(coefficient, turns, batch)
        tokens = Segments.of(
            torch.arange(batch.mask.shape[1], device=value.device).expand(batch.mask.shape), turns.inside
        )
        reward, critic, last = (
            tokens.at_last(one)
            for one in (torch.where(turns.last, turns.spread(value), 0.0), read_critic(batch, str(self)), turns.last)
        )
        discount = torch.full_like(reward, self.discount).masked_fill(last, self.turn_discount)
        advantage = generalized_advantage(reward, critic, tokens.exists, discount, self.trace_decay)
        counts = turns.spread(keep_whole_rollouts(keep, turns))
        return replace(coefficient, value=torch.where(counts, tokens.spread(advantage), 0.0), keep=counts)
