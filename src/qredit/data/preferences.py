"""Preference pairs: of two completions of one prompt, the one with the larger reward is preferred."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.data.completions import Completion, CompletionGroup, merge_groups, parse_ids
from qredit.utils.seed import derive_seed

_ROUNDING = 1e-9  # of a difference of rewards: 0.7 - 0.2 counts as 0.5


@dataclass(frozen=True)
class PreferencePair:
    """Two completions of one prompt.

    Attributes:
        prompt_ids: token ids of the prompt, opening included.
        chosen: the one that is preferred.
        rejected: the other.
    """

    prompt_ids: tuple[int, ...]
    chosen: Completion
    rejected: Completion

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longer completion."""
        return len(self.prompt_ids) + max(len(self.chosen.ids), len(self.rejected.ids))

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "prompt_ids": list(self.prompt_ids),
            "chosen": self.chosen.as_record(),
            "rejected": self.rejected.as_record(),
        }

    @classmethod
    def from_record(cls, record: Any) -> "PreferencePair":
        """What `as_record` was made of; further keys are not read.

        Raises:
            ValueError: it is no such record, whatever it is.
        """
        if not isinstance(record, Mapping):
            raise ValueError("a pair has prompt_ids, chosen and rejected")
        sides = (Completion.from_record(record.get(name, {})) for name in ("chosen", "rejected"))
        return cls(parse_ids(record.get("prompt_ids")), *sides)


@dataclass(frozen=True)
class PairCounts:
    """What became of the prompts and their completions.

    Attributes:
        prompts: different ones.
        completions: of all prompts, different ones.
        unscored: completions without a reward, which no pair holds.
        all_equal: prompts whose completions all have one reward: none is right where another is wrong.
        too_close: further prompts in which no two rewards differ by the margin.
        same_ids: pairs that were left out since both completions are the same tokens.
        pairs: that were made.
    """

    prompts: int
    completions: int
    unscored: int
    all_equal: int
    too_close: int
    same_ids: int
    pairs: int


def make_pairs(
    groups: Sequence[CompletionGroup], pairs_per_prompt: int, margin: float, seed: int
) -> tuple[list[PreferencePair], PairCounts]:
    """The pairs of each prompt, in the order of the prompts, and what was left out.

    A pair is two completions whose rewards differ by at least `margin`. Of the pairs of a prompt those with the widest
    margin are taken first; of equal ones, those whose completions stand in the fewest pairs so far; of these, in the
    order of a hash of (seed, number of the prompt, places of the two).

    Args:
        groups: completions of prompts; groups of one prompt are merged, and equal completions counted once.
        pairs_per_prompt: at most.
        margin: least difference of the two rewards, more than 0.
        seed: of the order.
    """
    made: list[PreferencePair] = []
    unscored = all_equal = too_close = same_ids = 0
    merged = merge_groups(groups)
    for number, group in enumerate(merged):
        scored = [one for one in group.completions if not math.isnan(one.reward)]
        apart = _list_pairs(scored, margin)
        different = [(i, j) for i, j in apart if scored[i].ids != scored[j].ids]
        taken = _choose(scored, different, pairs_per_prompt, derive_seed(seed, number))
        made += [PreferencePair(group.prompt_ids, scored[i], scored[j]) for i, j in taken]
        unscored += len(group.completions) - len(scored)
        same_ids += len(apart) - len(different)
        equal = len({one.reward for one in scored}) < 2
        all_equal += equal
        too_close += not equal and not apart
    completions = sum(len(group.completions) for group in merged)
    return made, PairCounts(len(merged), completions, unscored, all_equal, too_close, same_ids, len(made))


def _list_pairs(scored: Sequence[Completion], margin: float) -> list[tuple[int, int]]:
    """Places of two completions, of which the first is better by the margin."""
    places = range(len(scored))
    least = margin - _ROUNDING
    return [(i, j) for i in places for j in places if scored[i].reward - scored[j].reward >= least]


def _choose(
    scored: Sequence[Completion], pairs: Sequence[tuple[int, int]], count: int, seed: int
) -> list[tuple[int, int]]:
    """So many of the pairs, as `make_pairs` says."""
    left, used = list(pairs), Counter[int]()
    taken: list[tuple[int, int]] = []
    while left and len(taken) < count:
        best = min(left, key=lambda pair: (*_rank(scored, pair, used), derive_seed(seed, *pair)))
        left.remove(best)
        used.update(best)
        taken.append(best)
    return taken


def _rank(scored: Sequence[Completion], pair: tuple[int, int], used: Counter[int]) -> tuple[float, int]:
    i, j = pair
    return round(scored[j].reward - scored[i].reward, 9), used[i] + used[j]


def describe_left_out(counts: PairCounts, margin: float, compared: str = "reward") -> list[str]:
    """What was left out, a line for each kind of which there is any.

    Args:
        counts: of the prompts.
        margin: that was asked for.
        compared: what rollouts were compared by, in a word.
    """
    told = (
        (counts.all_equal, f"of {counts.prompts} prompts have one {compared} for all their rollouts and give no pair"),
        (counts.too_close, f"prompts have no two rollouts whose {compared}s differ by {margin:g} and give no pair"),
        (counts.unscored, f"rollouts have no {compared} and stand in no pair"),
        (counts.same_ids, "pairs would hold the same tokens twice and are left out"),
    )
    return [f"{count} {what}" for count, what in told if count]
