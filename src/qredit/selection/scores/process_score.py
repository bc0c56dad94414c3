"""The steps of a rationale, scored by a process reward model."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from qredit.rewards.judge.model import ProcessRewardModel
from qredit.selection.protocol import Ballot, Score, Scored
from qredit.utils.errors import look_up

_OVER: Mapping[str, Callable[[Sequence[float]], float]] = {
    "least": min,
    "mean": statistics.fmean,
    "last": lambda scores: scores[-1],
}


@dataclass(frozen=True)
class process_score(Score):
    """One number of a process reward model's step scores, each from -1 to 1; none for a rationale without steps.

    Args:
        model: folder or id of a token classifier with the labels 0 bad and 1 good; see `ProcessRewardModel.load`.
        over: what is made of the steps' scores: the least, their mean, or the last one.

    Raises:
        QreditError: another word than these three.
    """

    model: str
    over: str = "least"

    def __post_init__(self) -> None:
        look_up("way to join step scores", self.over, _OVER)

    @cached_property
    def _loaded(self) -> ProcessRewardModel:
        return ProcessRewardModel.load(self.model)

    def check_model(self) -> None:
        _ = self._loaded

    def score(self, ballots: Sequence[Ballot]) -> Scored:
        return Scored(tuple(tuple(self._one(b.question, text) for text in b.rationales) for b in ballots))

    def _one(self, question: str, rationale: str) -> float | None:
        steps = split_steps(rationale)
        return _OVER[self.over](self._loaded.score(question, steps)) if steps else None


def split_steps(rationale: str) -> list[str]:
    """The reasoning steps of a text: a blank line ends one."""
    return [step.strip() for step in re.split(r"\n[^\S\n]*\n", rationale) if step.strip()]
