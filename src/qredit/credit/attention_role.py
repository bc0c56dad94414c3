"""Heavier tokens where attention says that reasoning turns: before a change of place, and where later tokens look back.

Two fields, one number per token, are read off the attention maps of one extra forward pass:

    attention_locality   WAAD_t = Σ_{s≤t} A_loc[t, s] · min(t - s, W): how far back the near-sighted heads look
    attention_influence@FAR  FAI_s = mean of A_glob[t, s] over t in [s + 10, s + FAR]: how much the far-sighted heads
                         look at s

A jump of WAAD, Δ_t = |WAAD_t - WAAD_{t+1}|, marks the token after which the local context is left.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.schedule import check_range
from qredit.credit.token_weight import scale_tokens, select_tokens
from qredit.stats.masked import apply_mask, row_quantile, select_row_top
from qredit.utils.errors import QreditError


def jumps(locality: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Δ_t = |WAAD_t - WAAD_{t+1}|; 0 at a token that is not in the mask or whose next one is not."""
    difference = torch.zeros_like(locality)
    difference[:, :-1] = apply_mask((locality[:, 1:] - locality[:, :-1]).abs(), mask[:, 1:] & mask[:, :-1])
    return difference


@dataclass(frozen=True)
class _AttentionRole(Credit):
    """What the roles share: c_t ← (1 + (amplify - 1) · bonus_t) · c_t, on sampled tokens.

    With `both_signs` off, only where c_t ≥ 0, as in the paper's first version.
    """

    amplify: float = 1.5
    share: float = 0.4
    both_signs: bool = True

    def __post_init__(self) -> None:
        check_range("amplify", self.amplify, 0.0, math.inf)
        check_range("share", self.share, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        counts = select_tokens(coefficient, batch)
        factor = 1 + (self.amplify - 1) * self.bonus(batch, counts)
        return scale_tokens(coefficient, factor, counts if self.both_signs else counts & (coefficient.value >= 0))

    @abstractmethod
    def bonus(self, batch: RolloutBatch, counts: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """How much of the amplification each token gets."""

    def jumps(self, batch: RolloutBatch) -> Float[Tensor, "B T"]:
        """Δ of every token. Where an environment speaks in between the local context is not left by the model."""
        own = batch.mask if batch.observation is None else batch.mask & ~batch.observation
        return jumps(batch.require("attention_locality", str(self)).double(), own)


@dataclass(frozen=True)
class amplify_preplans(_AttentionRole):
    """c_t ← amplify · c_t on the `share` of each row's sampled tokens with the largest Δ_t.

    Args:
        both_signs: off amplifies only where c_t ≥ 0, the paper's first version.

    Source: arXiv 2510.13554v2, the local strategy.
    """

    needs = frozenset({"attention_locality"})

    def bonus(self, batch: RolloutBatch, counts: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return select_row_top(self.jumps(batch), counts, self.share).double()


@dataclass(frozen=True)
class amplify_anchors(_AttentionRole):
    """c_t ← amplify · c_t on the `share` of each row's sampled tokens with the largest FAI.

    Args:
        both_signs: off amplifies only where c_t ≥ 0.
        horizon: how many tokens later attention still counts for FAI.

    Source: arXiv 2510.13554v2, the anchor strategy; the paper's first version is both_signs=False, horizon=50.
    """

    horizon: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon < 10:
            raise QreditError(f"horizon must be at least 10 tokens, where the influence begins, got {self.horizon}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"attention_influence@{self.horizon}"})

    def bonus(self, batch: RolloutBatch, counts: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return self.anchors(batch, counts).double()

    def anchors(self, batch: RolloutBatch, counts: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """The `share` of each row's tokens that later tokens attend to most."""
        influence = batch.require(f"attention_influence@{self.horizon}", str(self))
        return select_row_top(influence.double(), counts, self.share)


@dataclass(frozen=True, kw_only=True)
class amplify_coupled_anchors(amplify_anchors):
    """As `amplify_anchors`, but an anchor that is local hands a part of its bonus to the token that introduced it.

        bonus = 1 on anchors that are not dominated, 1 - handed_back on dominated ones, plus handed_back on introducers

    An anchor is dominated if its WAAD lies at or below the row's `locality_quantile` and the largest Δ of the `window`
    tokens before it reaches the row's `jump_quantile`. Its introducer is the token of that largest Δ, the earlier among
    equals. An introducer that is itself an anchor collects both; one of several anchors collects once.

    Source: arXiv 2510.13554, the coupled strategy. The text at hand leaves the two thresholds and the part open: they
    are asked for. Difference: thresholds as quantiles of the row's sampled tokens; 0.5 is the median that a third
    party used, with half of the bonus handed back.
    """

    handed_back: float
    locality_quantile: float
    jump_quantile: float
    window: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("handed_back", "locality_quantile", "jump_quantile"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        if self.window < 1:
            raise QreditError(f"window must be at least 1 token, got {self.window}")

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"attention_locality"}

    def bonus(self, batch: RolloutBatch, counts: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        locality, jump = batch.require("attention_locality", str(self)).double(), self.jumps(batch)
        largest, introducer = _largest_before(apply_mask(jump, counts, -torch.inf), self.window)
        anchors = self.anchors(batch, counts)
        local = apply_mask(locality, counts, torch.inf) <= row_quantile(locality, counts, self.locality_quantile)
        dominated = anchors & local & (largest >= row_quantile(jump, counts, self.jump_quantile))
        introduces = torch.zeros_like(jump).scatter_reduce(1, introducer, dominated.double(), "amax")
        return anchors.double() + self.handed_back * (introduces - dominated.double())


def _largest_before(value: Float[Tensor, "B T"], window: int) -> tuple[Float[Tensor, "B T"], Int[Tensor, "B T"]]:
    """The largest of the `window` places before each one, and where it stands; -inf and the place 0 where none is."""
    before = torch.nn.functional.pad(value, (window, 0), value=-torch.inf)[:, :-1].unfold(1, window, 1)
    largest, offset = before.max(2)
    place = torch.arange(value.shape[1], device=value.device) - window + offset
    return largest, place.clamp(min=0)
