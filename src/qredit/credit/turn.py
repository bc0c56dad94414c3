"""Credit over turns: rewards of turns, statistics over pools of turns, sums over the turns to come.

A turn is the sampled tokens of a row that share a number in `turn`. Its number is what stands on its last token; stages
give all its tokens one value. Turns are never read off runs of the mask or off values: two turns without an observation
between them stay two, and a turn of reward 0 stays a turn.

What a turn is compared with, its *pool*, is named by a word: see `qredit.credit.turn_pool`.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.schedule import check_range
from qredit.credit.macro import generalized_advantage
from qredit.credit.turn_pool import check_pool, get_pool_needs, number_pools
from qredit.stats.division import divide_or_zero
from qredit.stats.groups import Groups
from qredit.stats.segment import Segments, suffix_sum


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
class sum_over_turns(TurnCredit):
    """c_k ← Σ_t c_t over the tokens of turn k: a number of each token becomes one of each turn."""

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        turns = segment_turns(batch, str(self))
        total = turns.spread(turns.total(coefficient.value.expand(batch.mask.shape)))
        return super().__call__(replace(coefficient, value=total), batch)

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        return value, keep


@dataclass(frozen=True)
class _PoolCredit(TurnCredit):
    """What the statistics of pools share."""

    pool: str

    def __post_init__(self) -> None:
        check_pool(self.pool)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"turn"}) | get_pool_needs(self.pool)

    @property
    def scope(self) -> Scope:
        return Scope.BATCH if self.pool == "batch" else Scope.GROUP

    def change(
        self, value: Float[Tensor, "B S"], keep: Bool[Tensor, "B S"], turns: Segments, batch: RolloutBatch
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        pools = Groups.of(number_pools(self.pool, turns, batch, str(self)).flatten())
        found, kept = self.compare(value.flatten(), keep.flatten(), pools)
        return found.view_as(value), kept.view_as(keep)

    @abstractmethod
    def compare(
        self, value: Float[Tensor, " N"], keep: Bool[Tensor, " N"], pools: Groups
    ) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
        """The new number of each turn, and which turns count from here on.

        Args:
            value: of each turn, in row order: N = B·S of them.
            keep: turns that count.
            pools: of each turn.
        """


@dataclass(frozen=True)
class center_by_pool(_PoolCredit):
    """c_k ← c_k - mean over the turn's pool, itself included. Exactly 0 where the whole pool is equal.

    Args:
        pool: prompt, turn, state, state@n, sibling, tree or batch, see `qredit.credit.turn_pool`.
        keep_lone: a turn alone in its pool keeps c_k, as in verl. Else it gets 0: it is compared with nothing.
    """

    keep_lone: bool = False

    def compare(
        self, value: Float[Tensor, " N"], keep: Bool[Tensor, " N"], pools: Groups
    ) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
        centred = torch.where(pools.is_constant(value, keep), 0.0, value - pools.mean(value, keep))
        return (torch.where(is_lone(keep, pools), value, centred) if self.keep_lone else centred), keep


@dataclass(frozen=True)
class subtract_pool_mean_of_others(_PoolCredit):
    """c_k ← c_k - mean over the *other* turns of its pool, the leave-one-out baseline. A turn alone keeps c_k.

    Exactly 0 where two or more turns are all equal.

    Args:
        pool: prompt, turn, state, state@n, sibling, tree or batch, see `qredit.credit.turn_pool`.
    """

    def compare(
        self, value: Float[Tensor, " N"], keep: Bool[Tensor, " N"], pools: Groups
    ) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
        count = pools.count(keep)
        others = (value - pools.mean(value, keep)) * count / (count - 1).clamp(min=1)
        less = torch.where(pools.is_constant(value, keep), 0.0, others)
        return torch.where(is_lone(keep, pools), value, less), keep


@dataclass(frozen=True)
class scale_by_pool_std(_PoolCredit):
    """c_k ← c_k / (std over the turn's pool + epsilon); 0 stays 0.

    With epsilon = 0, a pool of one turn or of equal ones gets 0.

    Args:
        pool: prompt, turn, state, state@n, sibling, tree or batch, see `qredit.credit.turn_pool`.
        epsilon: in units of c.
        correction: 1 for a std with n-1, 0 for one with n.
        keep_lone: a turn alone in its pool keeps c_k: its std counts as 1, as in verl.
    """

    epsilon: float = 1e-4
    correction: int = 1
    keep_lone: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("epsilon", self.epsilon, 0.0, math.inf)
        check_range("correction", self.correction, 0, 1)

    def compare(
        self, value: Float[Tensor, " N"], keep: Bool[Tensor, " N"], pools: Groups
    ) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
        count = pools.count(keep).clamp(min=1)
        std = pools.std(value, keep) * ((count - 1).clamp(min=0) / (count - self.correction).clamp(min=1)).sqrt()
        scaled = divide_or_zero(value, std + self.epsilon)
        return (torch.where(is_lone(keep, pools), value, scaled) if self.keep_lone else scaled), keep


@dataclass(frozen=True)
class skip_equal_pools(_PoolCredit):
    """Turns whose pool is all equal, or is one turn, are kept out: later statistics do not count their zeros.

    Args:
        pool: prompt, turn, state, state@n, sibling, tree or batch, see `qredit.credit.turn_pool`.
    """

    def compare(
        self, value: Float[Tensor, " N"], keep: Bool[Tensor, " N"], pools: Groups
    ) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
        return value, keep & ~pools.is_constant(value, keep)


def is_lone(keep: Bool[Tensor, " N"], pools: Groups) -> Bool[Tensor, " N"]:
    """Turns of pools in which one turn counts."""
    return pools.count(keep) == 1
