"""`degenerate`: rollouts that repeat themselves, end at their budget, or are no text."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import ClassVar

from qredit.core.schedule import check_range
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import EndReason, FieldValues, Role, Trajectory
from qredit.utils.errors import QreditError, check_count

_NO_TEXT = frozenset({"Cc", "Cn", "Co", "Cs"})
_PLAIN = frozenset("\n\r\t")


@dataclass(frozen=True)
class degenerate_rollouts(RolloutMaker):
    """`degenerate` (B,): whether a rollout repeats itself, was cut off, or is garbled.

    It repeats itself where a run of `gram` sampled tokens comes `repeats` times or more, overlaps counted. It was cut
    off where the budget closed the thinking of one of its own turns, or ended its last answer. It is garbled where more
    than a share `garbled` of its characters are no text: the replacement character of broken bytes, control characters
    other than line breaks and tabs, or code points without a character. What the policy did not draw, such as an
    observation, is not looked at, and no run of tokens goes over it.

    Logged: `degenerate/repeats`, `degenerate/cut_off`, `degenerate/garbled`, shares of rollouts.

    Args:
        gram: tokens of a run.
        repeats: how often a run must come, at least 2.
        garbled: share of characters, in [0, 1].
        cut_off: whether what ran out of its budget counts.

    Raises:
        QreditError: an argument out of its range.

    Source: arXiv 2501.11651 (T1) gives such rollouts the reward -1. Its notes tell no thresholds and no exact rules:
    these are ours.
    """

    gram: int
    repeats: int
    garbled: float
    cut_off: bool = True
    fills: ClassVar[tuple[str, ...]] = ("degenerate",)

    def __post_init__(self) -> None:
        check_count("gram of degenerate_rollouts", self.gram, 1)
        check_count("repeats of degenerate_rollouts", self.repeats, 2)
        check_range("garbled of degenerate_rollouts", self.garbled, 0.0, 1.0)
        if not isinstance(self.cut_off, bool):
            raise QreditError(f"cut_off of degenerate_rollouts must be True or False, got {self.cut_off!r}")

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        drawn = [list_runs(one) for one in trajectories]
        texts = ["".join(tools.tokenizer.decode(ids, skip_special_tokens=True) for ids in runs) for runs in drawn]
        found = {
            "repeats": [count_most_frequent(runs, self.gram) >= self.repeats for runs in drawn],
            "cut_off": [is_cut_off(one) for one in trajectories],
            "garbled": [measure_garbled(text) > self.garbled for text in texts],
        }
        for name, flags in found.items():
            tools.log_metric(f"degenerate/{name}", sum(flags) / max(len(flags), 1))
        counted = [flags for name, flags in found.items() if name != "cut_off" or self.cut_off]
        return {"degenerate": [any(row) for row in zip(*counted, strict=True)]}


def list_runs(one: Trajectory) -> list[tuple[int, ...]]:
    """What the policy drew without a break, in order."""
    runs = groupby(one.segments, key=lambda segment: segment.sampled)
    return [tuple(chain.from_iterable(part.ids for part in parts)) for sampled, parts in runs if sampled]


def count_most_frequent(texts: Iterable[Sequence[int]], gram: int) -> int:
    """How often the most frequent run of so many tokens comes, overlaps counted; 0 where all texts are shorter.

    Args:
        texts: token ids; no run goes from one to the next.
        gram: tokens of a run.
    """
    runs = Counter(tuple(ids[start : start + gram]) for ids in texts for start in range(len(ids) - gram + 1))
    return max(runs.values(), default=0)


def is_cut_off(one: Trajectory) -> bool:
    """Whether a budget closed the thinking of one of its own turns, or ended its last answer.

    A closing is forced behind a dropped end of text, too: that was no budget.
    """
    own = (segment for segment in one.segments if segment.turn >= one.branch)
    forced = sum(segment.role == Role.CLOSE and not segment.sampled for segment in own)
    return forced > one.dropped_ends or one.end in (EndReason.CAP, EndReason.BUDGET)


def measure_garbled(text: str) -> float:
    """The share of a text's characters that are no text; 0 of an empty one."""
    bad = sum(one == "\ufffd" or (unicodedata.category(one) in _NO_TEXT and one not in _PLAIN) for one in text)
    return bad / len(text) if text else 0.0
