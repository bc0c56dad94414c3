"""Macro actions: runs of tokens that share one advantage, and where they may be cut.

`value` (B, T) is a critic's estimate at each token, `macro` (B, T) the number of each token's macro action, -1 where
there is none.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.schedule import check_range
from qredit.credit.per_token import get_token_values
from qredit.stats.segment import Segments
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed


@dataclass(frozen=True)
class _MacroAdvantage(Credit):
    """Generalised advantage estimation over macro actions; c_{i,t} is the reward that arrives at each token."""

    discount: float = 1.0
    trace_decay: float = 0.95
    needs = frozenset({"value", "macro"})

    def __post_init__(self) -> None:
        check_range("discount", self.discount, 0.0, 1.0)
        check_range("trace_decay", self.trace_decay, 0.0, 1.0)

    @abstractmethod
    def share(self, rank: Int[Tensor, "B T"], size: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """What each token of a macro counts, up to a factor: `rank` is its place in it, from 0, of `size`."""

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        reward, _ = get_token_values(coefficient, batch)
        macros = Segments.of(batch.require("macro", str(self)), batch.sampled)
        share = self.share(macros.rank, macros.spread(macros.size))
        whole = torch.where(macros.exists, macros.total(share), 1.0)
        critic = batch.require("value", str(self)).double()
        pooled_reward = macros.total(share * reward) / whole
        pooled_value = macros.total(share * torch.where(batch.sampled, critic, 0.0)) / whole
        advantage = generalized_advantage(pooled_reward, pooled_value, macros.exists, self.discount, self.trace_decay)
        return replace(coefficient, value=macros.spread(advantage))


@dataclass(frozen=True)
class macro_advantage(_MacroAdvantage):
    """c_{i,t} ← A_τ of the token's macro action τ, whose reward and value are the means over its n tokens.

        R_τ = (1/n) Σ_k c_k,   V_τ = (1/n) Σ_k v_k,   δ_τ = R_τ + γ V_{τ+1} - V_τ,   A_τ = δ_τ + γ λ A_{τ+1}

    γ is `discount` and λ `trace_decay`, per macro and not per token. 0 on tokens of no macro. A last macro longer than
    one token averages the reward that arrives on its last token: see `fixed_macros`.
    """

    def share(self, rank: Int[Tensor, "B T"], size: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return torch.ones_like(rank, dtype=torch.float64)


@dataclass(frozen=True)
class macro_advantage_by_last(_MacroAdvantage):
    """`macro_advantage` with the reward and value of each macro's last token alone."""

    def share(self, rank: Int[Tensor, "B T"], size: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return (rank == size - 1).double()


@dataclass(frozen=True)
class macro_advantage_by_position(_MacroAdvantage):
    """`macro_advantage` with weights ∝ 1/k for the k-th token of a macro, k from 1."""

    def share(self, rank: Int[Tensor, "B T"], size: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return 1.0 / (rank.double() + 1.0)


def generalized_advantage(
    reward: Float[Tensor, "B S"],
    value: Float[Tensor, "B S"],
    exists: Bool[Tensor, "B S"],
    discount: float | Float[Tensor, "B S"],
    trace_decay: float,
) -> Float[Tensor, "B S"]:
    """A_s = δ_s + γ_s λ A_{s+1}, δ_s = r_s + γ_s V_{s+1} - V_s, V = 0 after the last place; 0 where there is none.

    Args:
        reward: (B, S) r_s.
        value: (B, S) V_s.
        exists: (B, S) places that there are.
        discount: γ, 0 … 1, one for all places or (B, S): that from place s to the next.
        trace_decay: λ, 0 … 1.
    """
    advantage = torch.zeros_like(reward)
    gamma = torch.as_tensor(discount, dtype=reward.dtype, device=reward.device).expand_as(reward)
    carried, following = torch.zeros_like(reward[:, 0]), torch.zeros_like(reward[:, 0])
    for place in reversed(range(reward.shape[1])):
        ahead = gamma[:, place] * (following + trace_decay * carried)
        own = reward[:, place] + ahead - value[:, place]
        carried = torch.where(exists[:, place], own, 0.0)
        following = torch.where(exists[:, place], value[:, place], 0.0)
        advantage[:, place] = carried
    return advantage


def fixed_macros(sampled: Bool[Tensor, "B T"], length: int) -> Int[Tensor, "B T"]:
    """Macro numbers: every `length` sampled tokens one macro; the last token a macro of its own; -1 elsewhere.

    The last token stands alone so that the reward on it is not averaged with tokens that got none. Difference from the
    authors' code: where (L-1) % length = 0 it puts an empty macro before the last token, [5, 5, 0, 1] for L = 11 and 5
    at a time; here it is [5, 5, 1].

    Raises:
        QreditError: a length below 1.
    """
    if length < 1:
        raise QreditError(f"length of a macro action must be at least 1, got {length}")
    bounds = torch.arange(1, sampled.shape[1] + 1) * length
    return _number_segments(sampled, bounds.expand(len(sampled), -1))


def random_macros(
    sampled: Bool[Tensor, "B T"], seed: int, repeats: int, lengths: tuple[int, ...] = (1, 2, 3, 5, 10)
) -> Int[Tensor, "B T"]:
    """Macro numbers of random lengths: each of `lengths` stands `repeats` times, in an order drawn for each row.

    Tokens beyond their sum form one more macro; the last token is a macro of its own. A function of (seed, row).

    Args:
        sampled: (B, T) tokens that are divided.
        seed: all draws are a function of it.
        repeats: how often each length stands in a row.
        lengths: of the macros, in tokens.

    Raises:
        QreditError: no lengths, one below 1, or fewer than one repeat.
    """
    if repeats < 1 or not lengths or min(lengths) < 1:
        raise QreditError(f"lengths of macro actions and their repeats must be at least 1, got {lengths} × {repeats}")
    pool = torch.tensor(lengths * repeats)
    orders = [
        torch.randperm(len(pool), generator=torch.Generator().manual_seed(derive_seed(seed, row)))
        for row in range(len(sampled))
    ]
    return _number_segments(sampled, torch.stack([pool[order].cumsum(0) for order in orders]))


def _number_segments(sampled: Bool[Tensor, "B T"], bounds: Int[Tensor, "B N"]) -> Int[Tensor, "B T"]:
    """How many bounds lie at or before each sampled token's place; the last token of a row is past all of them."""
    place = sampled.cumsum(1) - 1
    number = torch.searchsorted(bounds.to(place).contiguous(), place.contiguous(), right=True)
    last = sampled & (place == sampled.sum(1, keepdim=True) - 1)
    return torch.where(last, bounds.shape[1] + 1, number).masked_fill(~sampled, -1)
