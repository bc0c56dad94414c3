"""Credit over turns: rewards of turns, statistics over pools of turns, sums over the turns to come.

A turn is the sampled tokens of a row that share a number in `turn`. Its number is what stands on its last token; stages
give all its tokens one value. Turns are never read off runs of the mask or off values: two turns without an observation
between them stay two, and a turn of reward 0 stays a turn.

A *pool* is the set of turns that a statistic runs over:

    prompt    all turns of the group's rollouts
    turn      those at one place: the first turns, the second turns, … of the group's rollouts
    state     those of the group's rollouts that were taken in one state (`state`); one without a state is alone
    state@n   the same, where the n turns before were taken in equal states, too; one with fewer before it is alone
    batch     all turns of the optimiser step

A rollout may stand in a pool several times. Only turns that are kept count: a pool may be empty, and one of a single
turn has nothing to compare.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.schedule import check_range
from qredit.credit.macro import generalized_advantage
from qredit.stats.division import divide_or_zero
from qredit.stats.groups import Groups
from qredit.stats.segment import Segments, suffix_sum
from qredit.utils.errors import QreditError

POOLS = ("prompt", "turn", "state", "batch")


def segment_turns(batch: RolloutBatch, wanted_by: str) -> Segments:
    """The turns of each row, over its sampled tokens; those that no coefficient keeps are among them."""
    return Segments.of(batch.require("turn", wanted_by), batch.sampled)


def get_turn_values(
    coefficient: Coefficient, turns: Segments, batch: RolloutBatch
) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """The number of each turn, 0 where it does not count, and which turns count.

    Args:
        coefficient: as the stages before made it: value (B, 1) or (B, T), float64.
        turns: the turns of each row.
        batch: whole groups.
    """
    value = turns.at_last(coefficient.value.expand(batch.mask.shape))
    keep = turns.exists
    if coefficient.keep is not None:
        keep = keep & turns.at_last(coefficient.keep.expand(batch.mask.shape))
    return torch.where(keep, value, 0.0), keep


def set_turn_values(
    coefficient: Coefficient, turns: Segments, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"]
) -> Coefficient:
    """The coefficient with these numbers on the tokens of turns.

    Args:
        coefficient: whose other parts stay.
        turns: the turns of each row.
        value: (B, S) of each turn.
        keep: (B, S) turns that count.
    """
    return replace(coefficient, value=turns.spread(torch.where(keep, value, 0.0)), keep=turns.spread(keep))


def has_no_turn_after(turns: Segments) -> Bool[Tensor, "B S"]:
    """The last turn of each row, and the places behind it."""
    return turns.exists.cumsum(1) >= turns.exists.sum(1, keepdim=True)


@dataclass(frozen=True)
class turn_reward(Source):
    """c_{i,t} = r_{i,k}, the reward that the environment gave for turn k, on the turn's tokens.

    A turn for which it gave none (NaN) is kept out of statistics. So is every turn of a rollout whose own reward is
    NaN, because it was not scored. A reward of 0 is a reward.
    """

    needs = frozenset({"turn", "turn_reward", "reward"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        turns = segment_turns(batch, str(self))
        value = turns.at_last(batch.require("turn_reward", str(self)).double())
        given = ~value.isnan() & turns.exists & ~batch.require("reward", str(self)).isnan()[:, None]
        return set_turn_values(Coefficient(value), turns, value, given)


class TurnCredit(Credit):
    """A stage that changes one number for each turn: `change` says how."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"turn"})

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        turns = segment_turns(batch, str(self))
        value, keep = get_turn_values(coefficient, turns, batch)
        return set_turn_values(coefficient, turns, *self.change(value, keep, turns, batch))

    @abstractmethod
    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """The new number of each turn, and which turns count from here on.

        Args:
            value: (B, S) of each turn, 0 where it does not count.
            keep: (B, S) turns that count.
            turns: the turns of each row.
            batch: whole groups.
        """


@dataclass(frozen=True)
class at_last_turn(TurnCredit):
    """c_{i,t} ← c_i on the last turn of rollout i, the others kept out: the outcome as the reward of one turn."""

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        return value, keep & has_no_turn_after(turns)


@dataclass(frozen=True)
class skip_last_turn(TurnCredit):
    """The last turn of each rollout is kept out: it gave the answer, which the outcome is paid for."""

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        return value, keep & ~has_no_turn_after(turns)


@dataclass(frozen=True)
class sum_turns_to_come(TurnCredit):
    """c_k ← Σ_{j≥k} γ^{j-k} c_j over this and all later turns of the rollout, γ = `discount`.

    Before a pool's statistics it makes returns of rewards, after them it sums advantages. A turn that does not count
    adds 0 and still is a step of the discount. From here on a turn counts if it or a later one did.
    """

    discount: float = 1.0

    def __post_init__(self) -> None:
        check_range("discount", self.discount, 0.0, 1.0)

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        # returns are advantages over a critic that says 0
        total = generalized_advantage(value, torch.zeros_like(value), turns.exists, self.discount, 1.0)
        return total, count_to_come(keep) > 0


@dataclass(frozen=True)
class divide_by_root_of_turns_to_come(TurnCredit):
    """c_k ← c_k / √n, n = how many turns count from this one on: a sum of n turns, at the size of one."""

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        return value / count_to_come(keep).clamp(min=1).sqrt(), keep


def count_to_come(keep: Bool[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """How many turns count from each one on."""
    return suffix_sum(keep.double(), keep)


@dataclass(frozen=True)
class _PoolCredit(TurnCredit):
    """What the statistics of pools share."""

    pool: str

    def __post_init__(self) -> None:
        kind, at, number = self.pool.partition("@")
        if kind not in POOLS or (at and (kind != "state" or not number.isdecimal())):
            raise QreditError(
                f"no pool '{self.pool}'; there are {', '.join(map(repr, POOLS))}, and 'state@n' for n ≥ 0"
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"turn", "state"} if self.pool.startswith("state") else {"turn"})

    @property
    def scope(self) -> Scope:
        return Scope.BATCH if self.pool == "batch" else Scope.GROUP

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        pools = Groups.of(number_pools(self.pool, turns, batch, str(self)).flatten())
        return self.compare(value.flatten(), keep.flatten(), pools).view_as(value), keep

    @abstractmethod
    def compare(self, value: Float[Tensor, " N"], keep: Bool[Tensor, " N"], pools: Groups) -> Float[Tensor, " N"]:
        """The new number of each turn.

        Args:
            value: of each turn, in row order: N = B·S of them.
            keep: turns that count.
            pools: of each turn.
        """


@dataclass(frozen=True)
class center_by_pool(_PoolCredit):
    """c_k ← c_k - mean over the turn's pool, itself included. Exactly 0 where the whole pool is equal, or is one turn.

    Args:
        pool: prompt, turn, state, state@n or batch, as this file says.
    """

    def compare(self, value: Float[Tensor, " N"], keep: Bool[Tensor, " N"], pools: Groups) -> Float[Tensor, " N"]:
        return torch.where(pools.is_constant(value, keep), 0.0, value - pools.mean(value, keep))


@dataclass(frozen=True)
class scale_by_pool_std(_PoolCredit):
    """c_k ← c_k / (std over the turn's pool + epsilon); 0 stays 0.

    With epsilon = 0, a pool of one turn or of equal ones gets 0.

    Args:
        pool: prompt, turn, state, state@n or batch, as this file says.
        epsilon: in units of c.
        correction: 1 for a std with n-1, 0 for one with n.
    """

    epsilon: float = 1e-4
    correction: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("epsilon", self.epsilon, 0.0, math.inf)
        check_range("correction", self.correction, 0, 1)

    def compare(self, value: Float[Tensor, " N"], keep: Bool[Tensor, " N"], pools: Groups) -> Float[Tensor, " N"]:
        count = pools.count(keep).clamp(min=1)
        std = pools.std(value, keep) * ((count - 1).clamp(min=0) / (count - self.correction).clamp(min=1)).sqrt()
        return divide_or_zero(value, std + self.epsilon)


def number_pools(pool: str, turns: Segments, batch: RolloutBatch, wanted_by: str) -> Int[Tensor, "B S"]:
    """The number of each turn's pool: turns of one pool have equal ones.

    Args:
        pool: prompt, turn, state, state@n or batch, as this file says.
        turns: the turns of each row.
        batch: whole groups, with `state` where the pool asks for it.
        wanted_by: the stage, for errors.
    """
    if pool == "batch":
        return torch.zeros_like(turns.size)
    prompt = batch.groups.index[:, None].expand_as(turns.size)
    if pool == "prompt":
        return prompt
    if pool == "turn":
        return prompt * turns.size.shape[1] + torch.arange(turns.size.shape[1], device=turns.size.device)
    state = turns.at_last(batch.require("state", wanted_by).long())
    depth = int(pool.partition("@")[2] or 0)
    history = [_shift(state, n) for n in range(depth + 1)]
    unknown = torch.stack(history).lt(0).any(0)
    alone = torch.where(unknown, torch.arange(1, unknown.numel() + 1, device=state.device).view_as(state), 0)
    keys = torch.stack([prompt, alone, *history], -1).flatten(0, 1)
    number: Tensor = torch.unique(keys, dim=0, return_inverse=True)[1]
    return number.view_as(state)


def _shift(state: Int[Tensor, "B S"], turns: int) -> Int[Tensor, "B S"]:
    """The state of the turn so many before; -1 where there was none."""
    width = state.shape[1]
    return torch.nn.functional.pad(state, (turns, 0), value=-1)[:, :width]
