"""What became of a prompt: one value from the sampler to collation, in segments of token ids.

    prompt | think  close | answer | observation | think  close | answer
             turn 0                               turn 1

A rollout that asks nothing of the outside is the case of one turn. Segments are joined as ids, never as text.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import Any

from qredit.utils.errors import QreditError

FieldValues = bool | int | float | Sequence[bool] | Sequence[int] | Sequence[float]


class Role(StrEnum):
    """What part a segment plays.

    `ANSWER` is what was said to the outside: a turn's action, or, in the last segment of that role, ŷ. `GOLD` stands in
    the rows that collation makes, never in a sampled trajectory.
    """

    THINK = "think"
    CLOSE = "close"
    ANSWER = "answer"
    OBSERVATION = "observation"
    GOLD = "gold"


class EndReason(StrEnum):
    """How a trajectory ended: by its own answer, at a turn's cap on tokens, at its whole budget, by an error, or by a
    rule of branching that did not go on from it.
    """

    ANSWER = "answer"
    CAP = "cap"
    BUDGET = "budget"
    ERROR = "error"
    PRUNED = "pruned"


@dataclass(frozen=True)
class Segment:
    """A run of tokens that play one part.

    Attributes:
        ids: token ids; a tuple, or an `array` where they came from another process.
        role: the part.
        sampled: whether the policy drew them; a closing that was forced is not, nor is an observation.
        logp: log-probability of each token in nats, under the model at the sampling temperature, before any truncation
            or penalty, which the model that is trained does not have either; None where nothing is known of it.
        turn: number of its turn, from 0.

    Raises:
        QreditError: as many log-probabilities as tokens are needed; an observation or a gold answer is not sampled.
    """

    ids: Sequence[int]
    role: Role
    sampled: bool
    logp: Sequence[float] | None = None
    turn: int = 0

    def __post_init__(self) -> None:
        if self.logp is not None and len(self.logp) != len(self.ids):
            raise QreditError(
                f"a segment of {len(self.ids)} tokens ({self.role}) has {len(self.logp)} log-probabilities"
            )
        if self.sampled and self.role in (Role.OBSERVATION, Role.GOLD):
            raise QreditError(f"a segment of role '{self.role}' cannot be sampled")


@dataclass(frozen=True)
class TurnRecord:
    """What an environment said of one turn.

    Attributes:
        reward: of the turn's action alone; NaN where nothing was said of it.
        state_key: names the state that the action was taken in; None where the environment names none.
        counts: of what happened, such as calls of tools, by name.
    """

    reward: float = math.nan
    state_key: str | None = None
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trajectory:
    """A sampled trajectory, with what is known of it.

    A sampler fills the prompt, the segments and how they ended; whoever asked adds the rest (`dataclasses.replace`).

    Attributes:
        prompt: token ids, opening included.
        segments: what followed the prompt.
        end: how it ended.
        dropped_ends: how often an end of text inside thinking was dropped, and thinking closed by force there.
        example: the data set's row.
        group: trajectories of one prompt share it.
        golds: the ids of each right answer, their ends included: the gold answer, then its aliases.
        rationale, response: what was sampled before the last answer, without its closing, and that answer, as the text
            that reward functions read; empty until somebody has decoded them.
        reward: NaN where nothing scored it.
        fields: made fields (`rollouts/field_functions.py`): a number, or one for each of its tokens.
        hinted: token ids of the prompt with its gold answer shown; empty where nobody needs it.
        proposal: its tokens were drawn after `hinted`, not after `prompt`.
        turns: what the environment said of each turn, in order; empty where there is no environment.
        branch: number of its first turn that is its own; those before it are another's of the group.
        tree: number of the tree of the group that it was branched in; -1 where nothing branches.
        reinforced: a rule of drawing drew it in another way than the policy does; it is learned from by itself, and not
            compared with its group.
    """

    prompt: tuple[int, ...]
    segments: tuple[Segment, ...]
    end: EndReason
    dropped_ends: int = 0
    example: Mapping[str, Any] = field(default_factory=dict)
    group: int = 0
    golds: tuple[tuple[int, ...], ...] = ()
    rationale: str = ""
    response: str = ""
    reward: float = math.nan
    fields: Mapping[str, FieldValues] = field(default_factory=dict)
    hinted: tuple[int, ...] = ()
    proposal: bool = False
    turns: tuple[TurnRecord, ...] = ()
    branch: int = 0
    tree: int = -1
    reinforced: bool = False

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """All tokens behind the prompt."""
        return tuple(chain.from_iterable(segment.ids for segment in self.segments))

    @cached_property
    def logp(self) -> tuple[float, ...]:
        """The log-probability of each of them, 0 where none is known."""
        return tuple(chain.from_iterable(segment.logp or (0.0,) * len(segment.ids) for segment in self.segments))

    @cached_property
    def sampled(self) -> tuple[bool, ...]:
        """For each of them, whether the policy drew it."""
        return tuple(segment.sampled for segment in self.segments for _ in segment.ids)

    @cached_property
    def head(self) -> tuple[Segment, ...]:
        """The segments before the answer it ended with: what a gold answer is put behind."""
        return self.segments[:-1] if self._answered else self.segments

    @cached_property
    def answer(self) -> Segment | None:
        """The answer it ended with."""
        return self.segments[-1] if self._answered else None

    @property
    def _answered(self) -> bool:
        return bool(self.segments) and self.segments[-1].role == Role.ANSWER

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The sampled answer, its end included when it ended."""
        return () if self.answer is None else tuple(self.answer.ids)

    @cached_property
    def close_end(self) -> int:
        """How many tokens stand before the answer."""
        return sum(len(segment.ids) for segment in self.head)

    @cached_property
    def close_start(self) -> int:
        """How many of those stand before the closing that leads to the answer; all, where none does."""
        closed = bool(self.head) and self.head[-1].role == Role.CLOSE
        return self.close_end - (len(self.head[-1].ids) if closed else 0)

    @property
    def rationale_length(self) -> int:
        """How many tokens are the rationale, without its closing."""
        return self.close_start

    @property
    def rationale_ids(self) -> tuple[int, ...]:
        """Its ids, those of observations between its turns among them."""
        return self.ids[: self.rationale_length]

    @property
    def thought(self) -> int:
        """`rationale_length`, by the name that makers of fields know it by."""
        warnings.warn("Trajectory.thought is now Trajectory.rationale_length", DeprecationWarning, stacklevel=2)
        return self.rationale_length

    @property
    def forced(self) -> bool:
        """Whether the closing before the answer was forced."""
        return bool(self.head) and self.head[-1].role == Role.CLOSE and not self.head[-1].sampled

    @property
    def dropped_end(self) -> bool:
        """Whether an end of text inside thinking was dropped."""
        return self.dropped_ends > 0

    @property
    def episode_reward(self) -> float:
        """The sum of its turns' rewards; NaN where the environment gave none."""
        given = [turn.reward for turn in self.turns if not math.isnan(turn.reward)]
        return math.fsum(given) if given else math.nan

    @property
    def is_whole(self) -> bool:
        """Whether it was played to its end, and not left by an error or by a rule of branching."""
        return self.end not in (EndReason.ERROR, EndReason.PRUNED)

    @property
    def final_answer(self) -> str:
        """`response`, if it came to an answer of its own; "" for an episode that was left or whose budget ended first.

        What such an episode said last, a search say, is no answer, though it stands where one would.
        """
        return self.response if self.is_whole and self.end != EndReason.BUDGET else ""

    @property
    def ended(self) -> bool:
        """Whether the answer ended by itself."""
        return self.end == EndReason.ANSWER


def make_one_turn(
    prompt: Sequence[int],
    ids: Sequence[int],
    logp: Sequence[float],
    close_start: int,
    close_end: int,
    *,
    forced: bool,
    ended: bool,
    dropped_end: bool = False,
) -> Trajectory:
    """The trajectory of one turn: rationale, closing, answer.

    Args:
        prompt: its ids.
        ids: all three in a row.
        logp: log-probability of each token in nats; that of a forced one is not read.
        close_start, close_end: where the closing stands in `ids`.
        forced: the closing was forced.
        ended: the answer ended by itself.
        dropped_end: an end of text inside thinking was dropped.
    """
    ids, logp = tuple(ids), tuple(logp)
    closing = None if forced else logp[close_start:close_end]
    return Trajectory(
        prompt=tuple(prompt),
        segments=(
            Segment(ids[:close_start], Role.THINK, sampled=True, logp=logp[:close_start]),
            Segment(ids[close_start:close_end], Role.CLOSE, sampled=not forced, logp=closing),
            Segment(ids[close_end:], Role.ANSWER, sampled=True, logp=logp[close_end:]),
        ),
        end=EndReason.ANSWER if ended else EndReason.CAP,
        dropped_ends=int(dropped_end),
    )
