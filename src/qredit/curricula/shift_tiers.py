"""Tiers whose probabilities shift from one distribution to another while the run goes on."""

import math
from dataclasses import dataclass

from qredit.curricula._tier_pools import TieredPrompts, check_order, split_by_tier
from qredit.curricula.protocol import CurriculumData, check_share
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class shift_tiers:
    """Each prompt is of tier k with probability p_k, which moves along a straight line. Within a tier, epoch by epoch.

        p(u) = first                                        before the share `begin` of the run
        p(u) = first + (last - first) (u - begin) / (end - begin)
        p(u) = last                                         from the share `end` on

    Args:
        order: names of the tiers.
        first, last: a probability for each tier, in that order; each time they add up to 1.
        by: column that holds the tier of each row.
        begin, end: shares of the run between which the probabilities move.

    Raises:
        QreditError: no tier, one twice, numbers that are no distribution over the tiers, shares out of order.

    Source: RMT, arXiv 2509.24375, by notes of others: tiers easy, medium and hard by a token's entropy, shares 0.3 and
    0.7. They do not tell the two distributions, so these have no default. Difference: there prompts of a tier are drawn
    uniformly each time, here none comes again before all others of its tier.
    """

    order: tuple[str, ...]
    first: tuple[float, ...]
    last: tuple[float, ...]
    by: str = "tier"
    begin: float = 0.3
    end: float = 0.7

    def __post_init__(self) -> None:
        check_order("shift_tiers", self.order)
        for name in ("first", "last"):
            given = getattr(self, name)
            if len(given) != len(self.order) or min(given) < 0 or not math.isclose(math.fsum(given), 1, abs_tol=1e-9):
                raise QreditError(
                    f"shift_tiers: {name} must be {len(self.order)} probabilities that add up to 1, got {given}"
                )
        check_share("shift_tiers", "begin", self.begin, positive=False)
        check_share("shift_tiers", "end", self.end)
        if not self.begin < self.end:
            raise QreditError(f"shift_tiers: begin must be less than end, got {self.begin} and {self.end}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of tiers."""
        return (self.by,)

    def weigh(self, progress: float) -> list[float]:
        """The probability of each tier.

        Args:
            progress: share of the run that is over.
        """
        moved = min(max((progress - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return [one + (other - one) * moved for one, other in zip(self.first, self.last, strict=True)]

    def make(self, data: CurriculumData) -> TieredPrompts:
        """The sampler of a run.

        Raises:
            QreditError: no such column, a row of another tier, a tier without rows.
        """
        parts = split_by_tier("shift_tiers", self.order, self.by, data)
        return TieredPrompts("shift_tiers", parts, data, self.weigh)
