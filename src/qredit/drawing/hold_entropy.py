"""Entropy held at a target by good rollouts of another temperature: AEPO's sampler."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from qredit.core.field_names import REINFORCED
from qredit.drawing.protocol import DrawingTools, Row, repeat_rows
from qredit.rollouts.collate import has_equal_rewards, split_groups
from qredit.rollouts.trajectory import Trajectory
from qredit.utils.errors import QreditError

LEAST_ADVANTAGE = 0.05
"""Of a rollout that may take another's place, as in the released code."""


@dataclass(frozen=True)
class hold_entropy:
    """Some rollouts make room for good ones drawn hotter or colder, which `aepo` learns from with coefficient 1.

        Ĥ = -mean log p over the sampled tokens of the plain rollouts,   T = high if Ĥ ≤ target else low

    M rollouts of each prompt are drawn as ever. The first `share` of the prompts are drawn again, M times at T. Of
    these, rollouts whose reward lies above their group's, (r - mean)/std > 0.05, take the places of plain ones of the
    same prompt, in order, until `most` of the generation is replaced; half as many where Ĥ is above the target. The
    plain rollout at the same place goes, whatever it earned. Where no rollout is good enough, nothing changes and the
    step is a plain one.

    What is replaced depends on the second draw alone, so the plain rollouts that stay are draws of the policy like any.
    The others are not: the step they add is E_T[good · ∇log p], with no correction for T. It is biased on purpose. For
    one token of probabilities p and a reward that asks nothing, it moves the policy towards p^(1/T)/Σ, which has more
    entropy than p where T > 1 and less where T < 1.

    They have no reward (NaN) in the batch: no statistic of their group counts them.

    Logged: `entropy/target`, `drawing/entropy` (Ĥ), `drawing/temperature`, and `drawing/rows`, how many were replaced
    on all processes. There is no state: Ĥ is of the generation itself, so a resumed run goes on as the unbroken one.

    Args:
        target: entropy to hold, in nats a token.
        low, high: temperatures above and below the target.
        share: of the prompts, that are drawn a second time, rounded down, one at least.
        most: of the rollouts, that are replaced at most, rounded down: the strength of the control. 60 of 2,560 in the
            released script.

    Raises:
        QreditError: a target that is not above 0; temperatures other than 0 < low < 1 < high; a share or `most`
            outside (0, 1].

    Source: arXiv 2510.08141 and its released code (0.8, 1.2, a quarter, 60 of 2,560). Differences: there Ĥ is that of
    the last step's rows, replaced ones among them, and 0 before the first step. There the first rows of the batch make
    room, whatever their prompts, after their groups were compared; so a group keeps its statistics, and here it has
    those of the rollouts that stay. The code stops with an error where no rollout is good enough.
    """

    fills: ClassVar[frozenset[str]] = frozenset({REINFORCED})
    independent: ClassVar[bool] = True
    target: float
    low: float = 0.8
    high: float = 1.2
    share: float = 0.25
    most: float = 60 / 2560

    def __post_init__(self) -> None:
        if not (isinstance(self.target, int | float) and 0 < self.target < math.inf):
            raise QreditError(f"hold_entropy: target must be more than 0 nats, got {self.target!r}")
        if not 0 < self.low < 1 < self.high < math.inf:
            raise QreditError(
                f"hold_entropy: temperatures must be 0 < low < 1 < high, got low={self.low}, high={self.high}"
            )
        for name in ("share", "most"):
            if not 0 < getattr(self, name) <= 1:
                raise QreditError(f"hold_entropy: {name} must lie in (0, 1], got {getattr(self, name)}")

    def check_size(self, size: int) -> None:
        """Every size of at least 2 can be compared within."""

    def check_vocabulary(self, size: int) -> None:
        """Refuse a target that no distribution over the vocabulary has."""
        if self.target >= math.log(size):
            raise QreditError(
                f"hold_entropy: target={self.target} nats is not below log V = {math.log(size):.4g}, the entropy of a "
                f"uniform draw from the {size} tokens of this vocabulary"
            )

    def draw(self, rows: Sequence[Row], m: int, tools: DrawingTools) -> list[Trajectory]:
        """The plain rollouts, some of them replaced.

        Args:
            rows: of the data set, one for each prompt.
            m: rollouts per prompt.
            tools: of the run.
        """
        asked = repeat_rows(rows, m)
        plain = tools.score(tools.draw(asked), asked, m)
        entropy = estimate_entropy(plain, tools)
        above = entropy > self.target
        temperature = self.low if above else self.high
        again = repeat_rows(rows[: max(int(self.share * len(rows)), 1)], m)
        other = [replace(one, reinforced=True) for one in tools.draw(again, 1, temperature)]
        other = tools.score(other, again, m, apart=True)
        chosen = find_good(other, m)[: int(self.most * len(plain))]
        chosen = chosen[: len(chosen) // 2] if above else chosen
        tools.log("entropy/target", self.target)
        tools.log("drawing/entropy", entropy)
        tools.log("drawing/temperature", temperature)
        tools.log("drawing/rows", float(sum(tools.gather([len(chosen)]))))
        return put_in(plain, other, chosen)


def estimate_entropy(drawn: Sequence[Trajectory], tools: DrawingTools) -> float:
    """-mean log p over the sampled tokens of all processes, in nats; 0 without any.

    Args:
        drawn: by the policy itself; those of this process.
        tools: of the run.
    """
    told = [
        -value
        for one in drawn
        for segment in one.segments
        if segment.sampled and segment.logp is not None
        for value in segment.logp
    ]
    sums, counts = zip(*tools.gather([(math.fsum(told), len(told))]), strict=True)
    return math.fsum(sums) / max(int(sum(counts)), 1)


def put_in(plain: Sequence[Trajectory], other: Sequence[Trajectory], chosen: Sequence[int]) -> list[Trajectory]:
    """The plain rollouts, those at the chosen places replaced; what takes a place has no reward to compare.

    Args:
        plain: scored.
        other: of the first of their prompts, in the same order.
        chosen: places that both have.
    """
    put = {place: replace(other[place], group=plain[place].group, reward=math.nan) for place in chosen}
    return [put.get(place, one) for place, one in enumerate(plain)]


def find_good(drawn: Sequence[Trajectory], m: int) -> list[int]:
    """The places of rollouts whose reward lies above their group's by more than 0.05 standard deviations (n - 1).

    Args:
        drawn: scored, the m of each prompt together.
        m: rollouts per prompt.
    """
    found = []
    for number, group in enumerate(split_groups(drawn, m)):
        scored = [one.reward for one in group if not math.isnan(one.reward)]
        if has_equal_rewards(group):
            continue
        mean = math.fsum(scored) / len(scored)
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in scored) / (len(scored) - 1))
        found += [number * m + place for place, one in enumerate(group) if (one.reward - mean) / std > LEAST_ADVANTAGE]
    return found
