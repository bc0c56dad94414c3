"""Phases of rising difficulty, with hard prompts of earlier phases drawn again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.curricula._draws import Pool, count_share, draw_weighted, shuffle
from qredit.curricula.protocol import CurriculumData, Harder, check_begins, check_harder, check_share
from qredit.data.prompt_sampler import GroupStatistics
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed


@dataclass(frozen=True)
class phases:
    """Phase k asks prompts with limits[k-1] < difficulty ≤ limits[k], and again what was hard in the phases before.

    From the second phase on ⌊N · carried⌋ of N prompts come from earlier phases, each with probability

        ∝ 1 / max(r, least)

    where r is the mean reward of the prompt's last group: difficulty-weighted retrospective sampling. A call draws
    different ones. Prompts that were never scored are not carried over; where too few were, the phase's own come.

    Args:
        by: column of numbers, such as the length of the input, or `probe.NAME`.
        limits: between the phases, as values of that column from easy to hard. Two phases have one.
        carried: share of later phases that comes from earlier ones.
        least: what a smaller mean reward counts as, more than 0. Without it a prompt that was never solved would have
            an infinite weight.
        begins: at which share of the run each phase begins; None gives all phases the same share.
        harder: whether larger or smaller numbers are harder.

    Raises:
        QreditError: limits out of order, a share outside its bounds.

    Source: QwenLong-L1, arXiv 2505.17667: inputs of at most 20,000 tokens, then of 60,000, and hard prompts carried
    over by the inverse of their mean reward. How many are carried, and what a mean reward of 0 counts as, was not
    found, so both are to be given.
    """

    by: str
    limits: tuple[float, ...]
    carried: float
    least: float
    begins: tuple[float, ...] | None = None
    harder: Harder = "larger"

    def __post_init__(self) -> None:
        check_harder("phases", self.harder)
        rising = [value if self.harder == "larger" else -value for value in self.limits]
        if not rising or rising != sorted(set(rising)):
            raise QreditError(f"phases: limits must be numbers from easy to hard, one at least, got {self.limits}")
        check_share("phases", "carried", self.carried, positive=False)
        check_share("phases", "least", self.least)
        check_begins("phases", self.shares, len(self.limits) + 1)

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of difficulties."""
        return (self.by,)

    @property
    def shares(self) -> tuple[float, ...]:
        """At which share of the run each phase begins."""
        count = len(self.limits) + 1
        return tuple(phase / count for phase in range(count)) if self.begins is None else self.begins

    def make(self, data: CurriculumData) -> "PhasedPrompts":
        """The sampler of a run.

        Raises:
            QreditError: no such column of numbers; a phase with fewer prompts than a generation has.
        """
        difficulty = data.difficulty(self.by, self.harder, "phases")
        limits = [value if self.harder == "larger" else -value for value in self.limits]
        parts: list[list[int]] = [[] for _ in range(len(limits) + 1)]
        for prompt, value in enumerate(difficulty):
            parts[sum(value > limit for limit in limits)].append(prompt)
        for number, part in enumerate(parts, 1):
            data.check_batch(len(part), f"phase {number}", "phases")
        return PhasedPrompts(self, parts, data)


class PhasedPrompts:
    """The prompts of `phases`.

    Args:
        rule: with its arguments.
        parts: the prompts of each phase.
        data: of the run.
    """

    name = "phases"

    def __init__(self, rule: phases, parts: Sequence[Sequence[int]], data: CurriculumData) -> None:
        self.rule, self.seed, self.generations = rule, data.seed, data.generations
        self.pools = [Pool(part, derive_seed(data.seed, number)) for number, part in enumerate(parts)]
        self.rewards: dict[int, float] = {}
        self.observed = self.calls = self.given = 0

    @property
    def phase(self) -> int:
        """The number of the phase that is going on, from 0."""
        return sum(self.observed >= share * self.generations for share in self.rule.shares) - 1

    def next(self, n: int) -> list[int]:
        """The n that come next."""
        phase, again = self.phase, 0
        if phase:
            again = count_share(self.given, n, self.rule.carried)
            self.given += n
        earlier = [one for pool in self.pools[:phase] for one in pool.prompts if one in self.rewards]
        weights = [1 / max(self.rewards[one], self.rule.least) for one in earlier]
        seeds = (self.seed, len(self.pools), self.calls)
        old = draw_weighted(earlier, weights, again, derive_seed(*seeds))
        self.calls += 1
        return shuffle([*old, *self.pools[phase].next(n - len(old))], *seeds, 1)

    def observe(self, groups: Sequence[GroupStatistics]) -> None:
        """Keep what the groups of a generation showed."""
        self.observed += 1
        self.rewards |= {group.example: group.reward for group in groups if group.reward is not None}

    def state_dict(self) -> dict[str, Any]:
        return {
            "pools": [pool.state_dict() for pool in self.pools],
            "rewards": [[prompt, reward] for prompt, reward in self.rewards.items()],
            "observed": self.observed,
            "calls": self.calls,
            "given": self.given,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for pool, own in zip(self.pools, state["pools"], strict=True):
            pool.load_state_dict(own)
        self.rewards = dict(state["rewards"])
        self.observed, self.calls, self.given = state["observed"], state["calls"], state["given"]
