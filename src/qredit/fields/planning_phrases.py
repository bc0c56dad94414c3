"""`planning`: phrases that announce a plan, as the user lists them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, ClassVar

from qredit.rewards.judge.steps import decode_pieces
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import QreditError

PHRASES = (
    *("let's", "let us", "let me", "first", "second", "next", "then", "finally", "step by step", "in other words"),
    *("wait", "but", "however", "alternatively", "instead", "suppose", "assume", "in case", "consider", "notice that"),
    *("we need to", "i need to", "we have to", "to find", "so that", "because", "therefore", "check", "verify"),
)


@dataclass(frozen=True)
class planning_phrases(RolloutMaker):
    """`planning` (B, T): True on the rationale's sampled tokens that hold a part of one of these phrases.

    A phrase is found as whole words, in any case, whatever white space stands between its words. Tokens are looked at
    as text and keep their ids. Logged: `planning/share`, the share of these tokens inside a phrase.

    Args:
        phrases: texts; the default is a short English list of ours.

    Source: arXiv 2509.03646 matches a list of strategic n-grams. Difference: its list was mined by a model of meaning
    and is not published with the paper; this one is given.
    """

    phrases: tuple[str, ...] = PHRASES
    fills: ClassVar[tuple[str, ...]] = ("planning",)

    def __post_init__(self) -> None:
        if not (isinstance(self.phrases, tuple) and self.phrases and all(map(_is_phrase, self.phrases))):
            raise QreditError(f"phrases must be a list of texts with a word in each, got {self.phrases!r}")

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        alternatives = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in self.phrases)
        pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)
        drawn = [one.sampled[: one.rationale_length] for one in trajectories]
        marked = [
            mark_sampled(one.rationale_ids, sampled, pattern, tools.tokenizer)
            for one, sampled in zip(trajectories, drawn, strict=True)
        ]
        tools.log_metric("planning/share", sum(map(sum, marked)) / max(sum(map(sum, drawn)), 1))
        return {"planning": marked}


def mark_sampled(ids: Sequence[int], sampled: Sequence[bool], pattern: re.Pattern[str], tokenizer: Any) -> list[bool]:
    """`mark_matches` of each run of tokens that the policy drew; False on others, over which no match goes.

    Args:
        ids: of the tokens.
        sampled: of each token, whether the policy drew it.
        pattern: what is looked for.
        tokenizer: decodes them.
    """
    marked: list[bool] = []
    for drawn, run in groupby(zip(ids, sampled, strict=True), key=itemgetter(1)):
        own = [token for token, _ in run]
        marked += mark_matches(own, pattern, tokenizer) if drawn else [False] * len(own)
    return marked


def mark_matches(ids: Sequence[int], pattern: re.Pattern[str], tokenizer: Any) -> list[bool]:
    """For each token, whether a character of it lies inside a match in the text that the tokens are.

    A token that only begins a character stands with the one that completes it.

    Args:
        ids: of the tokens.
        pattern: what is looked for.
        tokenizer: decodes them.
    """
    pieces = decode_pieces(ids, tokenizer)
    ends = list(accumulate(map(len, pieces)))
    inside = [False] * (ends[-1] if ends else 0)
    for match in pattern.finditer("".join(pieces)):
        inside[match.start() : match.end()] = [True] * (match.end() - match.start())
    marked = [any(inside[end - len(piece) : end]) for piece, end in zip(pieces, ends, strict=True)]
    for place in reversed(range(len(marked) - 1)):
        if pieces[place] == "":
            marked[place] = marked[place + 1]
    return marked


def _is_phrase(phrase: object) -> bool:
    return isinstance(phrase, str) and bool(phrase.split())
