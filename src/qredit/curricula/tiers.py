"""Tiers that open one after the other, each with a weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from qredit.curricula._draws import Pool
from qredit.curricula.protocol import CurriculumData, check_begins
from qredit.data.prompt_sampler import GroupStatistics
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.seed import derive_seed


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
        if isinstance(self.order, str) or not self.order or len(set(self.order)) < len(self.order):
            raise QreditError(f"tiers: order must name different tiers, as ('easy', 'hard'), got {self.order!r}")
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

    def make(self, data: CurriculumData) -> "TieredPrompts":
        """The sampler of a run.

        Raises:
            QreditError: no such column, a row of another tier, a tier without rows, and fewer prompts than a
                generation has in the first tier.
        """
        parts: dict[Any, list[int]] = {name: [] for name in self.order}
        for prompt, tier in enumerate(data.column(self.by, "tiers")):
            if tier not in parts:
                raise unknown_name_error(f"tier of row {prompt}", str(tier), [str(name) for name in self.order])
            parts[tier].append(prompt)
        for name, part in parts.items():
            if not part:
                raise QreditError(f"curriculum tiers: no row is of tier '{name}'")
        data.check_batch(len(parts[self.order[0]]), f"tier '{self.order[0]}', alone at first,", "tiers")
        return TieredPrompts(self, list(parts.values()), data)


class TieredPrompts:
    """The prompts of `tiers`.

    Args:
        rule: with its arguments.
        parts: the prompts of each tier.
        data: of the run.
    """

    name = "tiers"

    def __init__(self, rule: tiers, parts: Sequence[Sequence[int]], data: CurriculumData) -> None:
        self.rule, self.seed, self.generations = rule, data.seed, data.generations
        self.weights = rule.weights or (1.0,) * len(parts)
        self.pools = [Pool(part, derive_seed(data.seed, number)) for number, part in enumerate(parts)]
        self.observed = self.calls = 0

    @property
    def open(self) -> int:
        """How many tiers are open."""
        return sum(self.observed >= share * self.generations for share in self.rule.shares)

    def next(self, n: int) -> list[int]:
        """The n that come next."""
        rng = Random(derive_seed(self.seed, len(self.pools), self.calls))
        self.calls += 1
        drawn = rng.choices(range(self.open), self.weights[: self.open], k=n)
        given = {tier: iter(self.pools[tier].next(drawn.count(tier))) for tier in sorted(set(drawn))}
        return [next(given[tier]) for tier in drawn]

    def observe(self, groups: Sequence[GroupStatistics]) -> None:
        """A generation is over; what it showed changes nothing."""
        self.observed += 1

    def state_dict(self) -> dict[str, Any]:
        pools = [pool.state_dict() for pool in self.pools]
        return {"pools": pools, "observed": self.observed, "calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for pool, own in zip(self.pools, state["pools"], strict=True):
            pool.load_state_dict(own)
        self.observed, self.calls = state["observed"], state["calls"]
