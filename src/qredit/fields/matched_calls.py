"""`turn_reward`: how well the calls of a turn match those of a reference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from qredit.environments.calls import FoundCall, ToolCall, find_any_form
from qredit.fields._turns import place_on_turns
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Role, Trajectory
from qredit.tasks.base import Example
from qredit.tasks.cells import drop_nulls
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class matched_calls(RolloutMaker):
    """`turn_reward` (B, T): on the tokens of a turn the mean similarity of its calls to their partners in a reference.

        S(p, g) = (1 + J + |{k : p_k = g_k}|) / (2 + |g|) where p and g call one tool, else 0

    J is the Jaccard index of the names of their arguments, 1 where neither has any, and |g| how many arguments g has.
    Over all turns of a rollout each call has one partner at most, and each reference call: pairs are taken by falling
    S. A call without a partner, or one that cannot be read, counts 0. A turn without a call has 0, but the last one,
    which answers: that has the reward of the rollout.

    Args:
        column: of the data, the calls of a reference: a list of {"name": …, "arguments": {…}}, or its JSON. The
            arguments may stand under "parameters", as in MatchTIR's data.

    Source: arXiv 2601.10712 (MatchTIR) and its official code, 'KM', which pairs greedily. Differences: a call that
    cannot be read is left out there, and the reward of the rollout is token F1. The soft matching is not here.
    """

    column: str = "calls"
    fills: ClassVar[tuple[str, ...]] = ("turn_reward",)

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise QreditError(f"column of matched_calls must be a name, got {self.column!r}")

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.column})

    def check_examples(self, examples: Sequence[Example]) -> None:
        for row, example in enumerate(examples):
            where = example.place or f"row {example.id or row}"
            if example.columns.get(self.column) is None:
                there = ", ".join(sorted(example.columns)) or "none"
                raise QreditError(f"matched_calls reads column '{self.column}', which {where} lacks; has: {there}")
            parse_calls(example.columns[self.column], where)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        return {"turn_reward": [place_on_turns(one, self._reward(one, tools.tokenizer)) for one in trajectories]}

    def _reward(self, one: Trajectory, tokenizer: Any) -> list[float]:
        """Of each turn of a rollout."""
        turns = [find_calls(one, turn, tokenizer) for turn in range(1 + max(s.turn for s in one.segments))]
        golds = parse_calls(one.example.get(self.column), "a row")
        scores = iter(match_calls([call for calls in turns for call in calls], golds))
        earned = [sum(next(scores) for _ in calls) / max(len(calls), 1) for calls in turns]
        return earned if turns[-1] else [*earned[:-1], one.reward]


def find_calls(one: Trajectory, turn: int, tokenizer: Any) -> Sequence[FoundCall]:
    """The calls of a turn, in whichever form they are written.

    Args:
        one: the rollout.
        turn: number of the turn.
        tokenizer: of its ids.
    """
    ids = [id for s in one.segments if s.turn == turn and s.role is Role.ANSWER for id in s.ids]
    for end in (len(ids), len(ids) - 1):  # with the token that ends a turn, which JSON cannot stand before, and without
        found = find_any_form(str(tokenizer.decode(ids[: max(end, 0)], skip_special_tokens=False)))
        if any(isinstance(call, ToolCall) for call in found):
            return found
    return ()


def match_calls(calls: Sequence[FoundCall], golds: Sequence[ToolCall]) -> list[float]:
    """The similarity of each call to its partner, 0 without one.

    Args:
        calls: of a rollout, in order.
        golds: of the reference.
    """
    pairs = [
        (compute_similarity(call, gold), place, other)
        for place, call in enumerate(calls)
        if isinstance(call, ToolCall)
        for other, gold in enumerate(golds)
    ]
    scores, taken = dict.fromkeys(range(len(calls)), 0.0), set[int]()
    for score, place, other in sorted(pairs, key=lambda pair: -pair[0]):
        if scores[place] == 0 and other not in taken and score > 0:
            scores[place] = score
            taken.add(other)
    return list(scores.values())


def compute_similarity(call: ToolCall, gold: ToolCall) -> float:
    """S of `matched_calls`, in [0, 1].

    Args:
        call: of a model.
        gold: of the reference.
    """
    if call.name.casefold() != gold.name.casefold():
        return 0.0
    every = call.arguments.keys() | gold.arguments.keys()
    shared = len(call.arguments.keys() & gold.arguments.keys()) / len(every) if every else 1.0
    told = gold.arguments.items()
    equal = sum(name in call.arguments and bool(call.arguments[name] == value) for name, value in told)
    return (1 + shared + equal) / (2 + len(gold.arguments))


def parse_calls(value: Any, where: str) -> list[ToolCall]:
    """The calls of a reference.

    Args:
        value: a list, or its JSON.
        where: what errors call the row.

    Raises:
        QreditError: it is something else.
    """
    listed = drop_nulls(value)  # as tables fill what a row lacks
    if isinstance(value, str):
        try:
            listed = json.loads(value)
        except (ValueError, RecursionError):
            listed = None
    if not isinstance(listed, list | tuple):
        raise QreditError(f"matched_calls, {where}: calls must be a list, or its JSON, got {str(value)[:80]!r}")
    return [_parse_call(call, where) for call in listed]


def _parse_call(call: Any, where: str) -> ToolCall:
    given = call if isinstance(call, Mapping) else {}
    name, arguments = given.get("name"), given.get("arguments", given.get("parameters", {}))
    if not isinstance(name, str) or not name or not isinstance(arguments, Mapping):
        raise QreditError(
            f"matched_calls, {where}: a call is {{'name': …, 'arguments': {{…}}}}, got {str(call)[:80]!r}"
        )
    return ToolCall(name, arguments)
