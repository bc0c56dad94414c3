"""Easier prompts mixed in among those that are to be learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.curricula._draws import Pool, count_share, shuffle
from qredit.curricula.protocol import CurriculumData, Harder, check_harder, check_share
from qredit.data.prompt_sampler import GroupStatistics
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed


@dataclass(frozen=True)
class mix_easier:
    """Of N prompts ⌊N · share⌋ are easier ones, all along; the others are those that are to be learned.

    Both kinds are visited epoch by epoch.

    Args:
        share: of easier prompts.
        by: column of numbers that says how hard a prompt is, or `probe.NAME`.
        target: the least difficulty of a prompt that is to be learned, as a value of that column; None takes the
            hardest there is.
        harder: whether larger or smaller numbers are harder.

    Raises:
        QreditError: a share outside its bounds.

    Source: arXiv 2510.03971, where rewards alone stay at zero on star graphs and rewards with easier graphs mixed into
    the training set do not. There the data are mixed before the run; here they are drawn from two parts of one data
    set, so that the share holds whatever their sizes.
    """

    share: float
    by: str = "difficulty"
    target: float | None = None
    harder: Harder = "larger"

    def __post_init__(self) -> None:
        check_harder("mix_easier", self.harder)
        check_share("mix_easier", "share", self.share)
        if self.share == 1:
            raise QreditError("mix_easier: share must be less than 1, else nothing is left to be learned")

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of difficulties."""
        return (self.by,)

    def make(self, data: CurriculumData) -> "MixedPrompts":
        """The sampler of a run.

        Raises:
            QreditError: no such column of numbers; no easier rows, or none to be learned.
        """
        difficulty = data.difficulty(self.by, self.harder, "mix_easier")
        sign = 1.0 if self.harder == "larger" else -1.0
        least = max(difficulty) if self.target is None else sign * self.target
        hard = [prompt for prompt, value in enumerate(difficulty) if value >= least]
        easy = [prompt for prompt, value in enumerate(difficulty) if value < least]
        bound = f"{'at least' if sign > 0 else 'at most'} {sign * least:g}"
        if not hard or not easy:
            lacking = "easier" if hard else "as hard"
            raise QreditError(f"curriculum mix_easier: no row is {lacking}; '{self.by}' is to be {bound}")
        return MixedPrompts(self, easy, hard, data.seed)


class MixedPrompts:
    """The prompts of `mix_easier`.

    Args:
        rule: with its arguments.
        easy, hard: prompts of both kinds.
        seed: of the run.
    """

    name = "mix_easier"

    def __init__(self, rule: mix_easier, easy: Sequence[int], hard: Sequence[int], seed: int) -> None:
        self.rule, self.seed = rule, seed
        self.easy, self.hard = Pool(easy, derive_seed(seed, 0)), Pool(hard, derive_seed(seed, 1))
        self.given = self.calls = 0

    def next(self, n: int) -> list[int]:
        """The n that come next."""
        easier = count_share(self.given, n, self.rule.share)
        chosen = [*self.easy.next(easier), *self.hard.next(n - easier)]
        self.given, self.calls = self.given + n, self.calls + 1
        # of a generation that serves several steps no step is to hold one kind alone
        return shuffle(chosen, self.seed, 2, self.calls)

    def observe(self, groups: Sequence[GroupStatistics]) -> None:
        """The shares stay as they are."""

    def state_dict(self) -> dict[str, Any]:
        pools = [self.easy.state_dict(), self.hard.state_dict()]
        return {"pools": pools, "given": self.given, "calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for pool, own in zip((self.easy, self.hard), state["pools"], strict=True):
            pool.load_state_dict(own)
        self.given, self.calls = state["given"], state["calls"]
