"""Tiers that open one after the other, each with a weight."""

from dataclasses import dataclass

from qredit.curricula._tier_pools import TieredPrompts, check_order, split_by_tier
from qredit.curricula.protocol import CurriculumData, check_begins
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class tiers:
    """Each prompt is of a tier that is open: with probability w_t / Σ_open w. Within a tier, epoch by epoch.

    Args:
        order: names of the tiers in the order in which they open.
        by: column that holds the tier of each row.
        weights: of the tiers in that order; None gives all the same.
        begins: at which share of the run each tier opens; None opens tier k of K, from 0, at k/(K+1).

    Raises:
        QreditError: no tier, one twice, weights that are not all more than 0, beginnings out of order.

    Source: TAROT, arXiv 2602.15449 and its official code: of four tiers, basic, intermediate, complex and edge, one is
    open in the first fifth of the run, two in the second, three in the third, then all. `order` from complex or edge on
    is its other direction. Its weights are 0.25 each, or 0.35, 0.35, 0.15, 0.15 and the reverse.

    Difference: TAROT's tiers are those of a problem's tests, and its weights stand in the reward, R = Σ w_tier over
    passed tests of open tiers. Here tiers are of prompts, and weights are how often they are asked. For tests with
    weights see the reward `unit_tests`.
    """

    order: tuple[str, ...]
    by: str = "tier"
    weights: tuple[float, ...] | None = None
    begins: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_order("tiers", self.order)
        if self.weights is not None and (len(self.weights) != len(self.order) or not min(self.weights) > 0):
            raise QreditError(f"tiers: weights must be {len(self.order)} numbers above 0, got {self.weights}")
        check_begins("tiers", self.shares, len(self.order))

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of tiers."""
        return (self.by,)

    @property
    def shares(self) -> tuple[float, ...]:
        """At which share of the run each tier opens."""
        count = len(self.order)
        return tuple(tier / (count + 1) for tier in range(count)) if self.begins is None else self.begins

    def make(self, data: CurriculumData) -> TieredPrompts:
        """The sampler of a run.

        Raises:
            QreditError: no such column, a row of another tier, a tier without rows, and fewer prompts than a
                generation has in the first tier.
        """
        parts = split_by_tier("tiers", self.order, self.by, data)
        data.check_batch(len(parts[0]), f"tier '{self.order[0]}', alone at first,", "tiers")
        return TieredPrompts("tiers", parts, data, self.weigh)

    def weigh(self, progress: float) -> list[float]:
        """The weight of each tier, 0 where it is not open.

        Args:
            progress: share of the run that is over.
        """
        weights = self.weights or (1.0,) * len(self.order)
        return [weight * (progress >= share) for weight, share in zip(weights, self.shares, strict=True)]
