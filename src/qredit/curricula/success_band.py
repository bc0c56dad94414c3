"""Prompts whose running success lies in a band, and first those of which nothing is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.curricula._draws import count_share, shuffle
from qredit.curricula.protocol import CurriculumData, check_share
from qredit.data.prompt_sampler import GroupStatistics
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class success_band:
    """Prompts that are neither hopeless nor mastered: low ≤ s ≤ high.

        s ← r at a prompt's first group,   s ← s + rate · (r - s) at each later one

    r is the mean reward of the group. Of prompts that were scored, those in the band come first, then those nearest to
    it; among equals the one that was asked least often, then by lot. A call gives different prompts.

    Args:
        low, high: ends of the band, as mean rewards.
        rate: how fast s follows, in (0, 1]; 1 keeps the last group alone.
        unknown: share of prompts that were never scored, while there are any; 1 asks all of them first.

    Raises:
        QreditError: an empty band, or a share outside its bounds.

    The band is that of learnable prompts in dynamic sampling: groups of equal rewards give rewards alone nothing to
    learn from. What it prefers is ours, and so are the defaults.
    """

    low: float
    high: float
    rate: float = 0.5
    unknown: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise QreditError(f"success_band: low must be at most high, got {self.low} and {self.high}")
        check_share("success_band", "rate", self.rate)
        check_share("success_band", "unknown", self.unknown)

    @property
    def columns(self) -> tuple[str, ...]:
        """None: what groups show is all that it reads."""
        return ()

    def make(self, data: CurriculumData) -> "SuccessBandPrompts":
        """The sampler of a run.

        Raises:
            QreditError: fewer prompts than a generation has.
        """
        data.check_batch(data.prompts, "the data", "success_band")
        return SuccessBandPrompts(self, data.prompts, data.seed)


class SuccessBandPrompts:
    """The prompts of `success_band`.

    Args:
        rule: with its arguments.
        prompts: size of the data set.
        seed: of the run.
    """

    name = "success_band"

    def __init__(self, rule: success_band, prompts: int, seed: int) -> None:
        self.rule, self.seed = rule, seed
        self.success: list[float | None] = [None] * prompts
        self.asked = [0] * prompts
        self.calls = self.given = 0

    def next(self, n: int) -> list[int]:
        """The n that come next, all different."""
        order = shuffle(range(len(self.asked)), self.seed, self.calls)
        unknown = [one for one in sorted(order, key=self.asked.__getitem__) if self.success[one] is None]
        known = sorted((one for one in order if self.success[one] is not None), key=self._preference)
        fresh = min(count_share(self.given, n, self.rule.unknown), len(unknown))
        fresh = max(fresh, n - len(known))
        chosen = [*unknown[:fresh], *known[: n - fresh]]
        for one in chosen:
            self.asked[one] += 1
        self.calls, self.given = self.calls + 1, self.given + n
        return chosen

    def observe(self, groups: Sequence[GroupStatistics]) -> None:
        """The running success of prompts that were scored moves."""
        for group in groups:
            if group.reward is None:
                continue
            before = self.success[group.example]
            step = 0.0 if before is None else self.rule.rate * (group.reward - before)
            self.success[group.example] = group.reward if before is None else before + step

    def state_dict(self) -> dict[str, Any]:
        return {"success": list(self.success), "asked": list(self.asked), "calls": self.calls, "given": self.given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.success, self.asked = list(state["success"]), list(state["asked"])
        self.calls, self.given = state["calls"], state["given"]

    def _preference(self, one: int) -> tuple[float, int]:
        """Distance from the band, then how often it was asked."""
        success = self.success[one]
        assert success is not None
        return max(self.rule.low - success, success - self.rule.high, 0.0), self.asked[one]
