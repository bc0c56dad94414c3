"""`turn_feature@n`: numbers that a function of the user's tells of a turn."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from qredit.core.field_names import TURN_FEATURE_PREFIX
from qredit.fields._turns import place_on_turns, read_turns
from qredit.rewards.judge.endpoint import show_prompt
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import QreditError
from qredit.utils.imports import import_object
from qredit.utils.sanitize import summarize_error, to_one_line

Turn = tuple[str, str, str]
"""What stands before a turn, what was said in it, and what was answered."""
_SHOWN = 60  # characters of a turn in an error


@dataclass(frozen=True)
class turn_features(RolloutMaker):
    """`turn_feature@0`, `turn_feature@1`, … (B, T): on the tokens of a turn the numbers that a function tells of it.

    `function(before, said, observed)` gets three texts and returns a list of numbers: the question with all turns
    before, what was said in the turn, and what was answered to it. They are what a model and an environment wrote:
    untrusted. The function is code of yours, maybe written by a language model, and is run as such.

    It is tried before anything is computed, twice on each turn of `examples()`, a list of such triples. It has to
    return finite numbers, as many each time and the same ones again, and each of them has to differ between the
    examples: what is always the same tells nothing. In a run, a turn on which it fails ends the run.

    Args:
        function: import path, `package.module:name`.
        examples: import path of a function without arguments that returns example turns.

    Raises:
        QreditError: one of the two cannot be imported, or the function fails on the examples.

    Source: arXiv 2412.11120 (LaRe), its latent rewards: features by code that a language model wrote, tried on states
    before it is used. Difference: there the language model is told the error and writes again; here you are.
    """

    function: str
    examples: str
    fills: ClassVar[tuple[str, ...]] = (TURN_FEATURE_PREFIX[:-1],)

    def __post_init__(self) -> None:
        for name in ("function", "examples"):
            if not isinstance(getattr(self, name), str):
                raise QreditError(f"{name} of turn_features must be an import path, got {getattr(self, name)!r}")
        _ = self._width  # tries the function

    @cached_property
    def _tell(self) -> Callable[[str, str, str], Sequence[float]]:
        return import_object(self.function)

    @cached_property
    def _width(self) -> int:
        return _count_features(self.function, self._tell, _read_examples(self.examples))

    def check_name(self, name: str) -> None:
        super().check_name(name)
        if name not in self._names:
            raise QreditError(f"field {name}: turn_features makes {', '.join(self._names)}")

    def list_fields(self, name: str) -> frozenset[str]:
        return frozenset(self._names)

    @property
    def own_functions(self) -> tuple[Callable[..., Any], ...]:
        return (self._tell,)

    @property
    def _names(self) -> list[str]:
        return [f"{TURN_FEATURE_PREFIX}{number}" for number in range(self._width)]

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        told = [[self._features(turn) for turn in list_turns(one, tools.tokenizer)] for one in trajectories]
        return {
            name: [
                place_on_turns(one, [features[number] for features in turns])
                for one, turns in zip(trajectories, told, strict=True)
            ]
            for number, name in enumerate(self._names)
        }

    def _features(self, turn: Turn) -> list[float]:
        found = _try(self.function, self._tell, turn)
        if len(found) != self._width:
            raise _fault(self.function, turn, f"gives {len(found)} numbers, and {self._width} on the examples")
        return found


def list_turns(one: Trajectory, tokenizer: Any) -> list[Turn]:
    """Each turn of a rollout as the function reads it."""
    before = show_prompt(one.example["prompt"])
    found: list[Turn] = []
    for turn in read_turns(one, tokenizer):
        found.append((before, turn.said, turn.observed))
        before = "\n".join(filter(None, (before, turn.said, turn.observed)))
    return found


def _read_examples(path: str) -> list[Turn]:
    """The example turns that a function of the user's returns.

    Raises:
        QreditError: it fails, or returns anything else than two or more triples of texts.
    """
    try:
        turns = [tuple(turn) for turn in import_object(path)()]
    except QreditError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise QreditError(f"turn_features: {path} raises {type(error).__name__}: {summarize_error(error)}") from None
    right = all(len(turn) == 3 and all(isinstance(text, str) for text in turn) for turn in turns)
    if not right or len(turns) < 2:
        raise QreditError(f"turn_features: {path} must return two or more turns, each (before, said, observed)")
    return turns  # type: ignore[return-value]


def _count_features(path: str, tell: Callable[..., Any], examples: Sequence[Turn]) -> int:
    """How many features a function tells, if it can be used.

    Args:
        path: of the function.
        tell: the function.
        examples: it is tried on.

    Raises:
        QreditError: names the function and the fault.
    """
    rows = [_try(path, tell, turn) for turn in examples]
    width = len(rows[0])
    for turn, row in zip(examples, rows, strict=True):
        if len(row) != width or not row:
            raise _fault(path, turn, f"gives {len(row)} numbers" + (f", and {width} on the first" if width else ""))
        if _try(path, tell, turn) != row:
            raise _fault(path, turn, "gives other numbers when it is asked again")
    for number in range(width):
        if len({row[number] for row in rows}) == 1:
            raise QreditError(
                f"turn_features: {path} tells {rows[0][number]:g} as number {number} of every example turn; leave it "
                "out, or add an example on which it differs"
            )
    return width


def _try(path: str, tell: Callable[..., Any], turn: Turn) -> list[float]:
    """What a function tells of a turn.

    Args:
        path: of the function.
        tell: the function.
        turn: it is asked about.

    Raises:
        QreditError: it raises, or what it returns are no finite numbers.
    """
    try:
        found = [float(value) for value in tell(*turn)]
    except Exception as error:  # whatever the user's function raises, or returns that holds no numbers
        raise _fault(path, turn, f"raises {type(error).__name__}: {summarize_error(error)}") from None
    for number, value in enumerate(found):
        if not math.isfinite(value):
            raise _fault(path, turn, f"tells {value} as number {number}")
    return found


def _fault(path: str, turn: Turn, what: str) -> QreditError:
    """The error for a function that cannot be used, on one line.

    Args:
        path: of the function.
        turn: on which it failed.
        what: it did.
    """
    said = turn[1] if len(turn[1]) <= _SHOWN else f"{turn[1][:_SHOWN]}…"
    return QreditError(to_one_line(f"turn_features: {path} {what}, on the turn {said!r}"))
