"""What rules over tiers of prompts share: rows by their tier, and prompts drawn by the weights of tiers."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from qredit.curricula._draws import Pool
from qredit.curricula.protocol import CurriculumData
from qredit.data.prompt_sampler import GroupStatistics
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.seed import derive_seed


def check_order(rule: str, order: Sequence[str]) -> None:
    """Refuse what are no names of tiers.

    Args:
        rule: the curriculum.
        order: names of its tiers.

    Raises:
        QreditError: no tier, or one twice.
    """
    if isinstance(order, str) or not order or len(set(order)) < len(order):
        raise QreditError(f"{rule}: order must name different tiers, as ('easy', 'hard'), got {order!r}")


def split_by_tier(rule: str, order: Sequence[str], by: str, data: CurriculumData) -> list[list[int]]:
    """The prompts of each tier.

    Args:
        rule: the curriculum.
        order: names of its tiers.
        by: column that holds the tier of each row.
        data: of the run.

    Raises:
        QreditError: no such column, a row of another tier, a tier without rows.
    """
    parts: dict[Any, list[int]] = {name: [] for name in order}
    for prompt, tier in enumerate(data.column(by, rule)):
        if tier not in parts:
            raise unknown_name_error(f"tier of row {prompt}", str(tier), [str(name) for name in order])
        parts[tier].append(prompt)
    for name, part in parts.items():
        if not part:
            raise QreditError(f"curriculum {rule}: no row is of tier '{name}'")
    return list(parts.values())


class TieredPrompts:
    """Each prompt is of a tier drawn by weight; within a tier they come epoch by epoch.

    Args:
        name: of the rule, under which a checkpoint holds the state.
        parts: the prompts of each tier.
        data: of the run.
        weigh: the weight of each tier, by the share of the run that is over; 0 where it is not drawn.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[Sequence[int]],
        data: CurriculumData,
        weigh: Callable[[float], Sequence[float]],
    ) -> None:
        self.name, self.weigh = name, weigh
        self.seed, self.generations = data.seed, data.generations
        self.pools = [Pool(part, derive_seed(data.seed, number)) for number, part in enumerate(parts)]
        self.observed = self.calls = 0

    def next(self, n: int) -> list[int]:
        """The n that come next."""
        rng = Random(derive_seed(self.seed, len(self.pools), self.calls))
        self.calls += 1
        drawn = rng.choices(range(len(self.pools)), self.weigh(self.observed / self.generations), k=n)
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
