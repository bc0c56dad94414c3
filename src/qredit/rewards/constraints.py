"""Constraints that an answer is to keep, and the share of them that it keeps."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from qredit.tasks.task_call import check_arguments, parse_task_call
from qredit.utils.errors import QreditError, check_count, unknown_name_error

_SENTENCE = re.compile(r"[^.!?…]*\w[^.!?…]*(?:[.!?…]+|$)")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)


def words(text: str, least: int = 0, most: int | None = None) -> bool:
    """It has so many words, parted by white space.

    Args:
        text: the answer.
        least, most: bounds, both included.
    """
    return _lies_within("words", len(text.split()), least, most)


def sentences(text: str, least: int = 0, most: int | None = None) -> bool:
    """It has so many sentences: pieces with a letter or digit that end in . ! ? or … or with the text.

    Args:
        text: the answer.
        least, most: bounds, both included.
    """
    return _lies_within("sentences", len(_SENTENCE.findall(text)), least, most)


def bullets(text: str, least: int = 0, most: int | None = None) -> bool:
    """It has so many lines that begin with -, *, • or a number with a dot or bracket.

    Args:
        text: the answer.
        least, most: bounds, both included.
    """
    return _lies_within("bullets", len(_BULLET.findall(text)), least, most)


def contains(text: str, phrase: str, least: int = 1, most: int | None = None) -> bool:
    """A phrase occurs so often, as whole words and in any case.

    Args:
        text: the answer.
        phrase: words.
        least, most: bounds, both included.
    """
    return _lies_within("contains", _count(text, phrase), least, most)


def forbids(text: str, phrase: str) -> bool:
    """A phrase does not occur, as whole words and in any case."""
    return not _count(text, phrase)


def case(text: str, kind: str) -> bool:
    """Its letters are all of one case, 'lower' or 'upper', and it has some."""
    if kind not in ("lower", "upper"):
        raise unknown_name_error("kind of case", str(kind), ("lower", "upper"))
    return text.islower() if kind == "lower" else text.isupper()


def ends_with(text: str, phrase: str) -> bool:
    """Its last characters are these, white space behind them apart."""
    return text.rstrip().endswith(_check_phrase(phrase))


def starts_with(text: str, phrase: str) -> bool:
    """Its first characters are these, white space before them apart."""
    return text.lstrip().startswith(_check_phrase(phrase))


def is_json(text: str) -> bool:
    """It is JSON, all of it."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


CHECKS: Mapping[str, Callable[..., bool]] = MappingProxyType(
    {
        check.__name__: check
        for check in (words, sentences, bullets, contains, forbids, case, ends_with, starts_with, is_json)
    }
)


@dataclass(frozen=True)
class Constraint:
    """A check with its arguments."""

    name: str
    arguments: Mapping[str, Any]

    def holds(self, text: str) -> bool:
        """Whether an answer keeps it."""
        return CHECKS[self.name](text, **self.arguments)


def parse_constraints(value: Any) -> tuple[Constraint, ...]:
    """The constraints of a row: a list of texts such as `words(most=50)`, or one of them.

    Raises:
        QreditError: none, an unknown check (with the nearest), a wrong argument.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not listed or not all(isinstance(one, str) for one in listed):
        raise QreditError(f"constraints must be a list of texts such as 'words(most=50)', got {value!r}")
    return tuple(map(_parse_constraint, listed))


def score_constraints(response: str, constraints: Sequence[Constraint]) -> float:
    """The share of constraints that an answer keeps; 0 for a blank answer, which keeps many of them by saying nothing.

    Args:
        response: the answer.
        constraints: of its row.

    Source: Light-IF, arXiv 2508.03178: dense credit for each constraint that is satisfied. Its checks were not found,
    and these are ours.
    """
    if not response.strip():
        return 0.0
    return sum(one.holds(response) for one in constraints) / len(constraints)


def _parse_constraint(text: str) -> Constraint:
    call = parse_task_call(text, "constraint")
    if call.member is not None or call.name not in CHECKS:
        raise unknown_name_error("constraint", call.name, CHECKS)
    made = Constraint(call.name, call.arguments)
    check_arguments(f"constraint '{text}'", CHECKS[call.name], call.arguments, given=1)
    made.holds("a")  # refuses values that it cannot compare with
    return made


def _lies_within(name: str, count: int, least: int, most: int | None) -> bool:
    check_count(f"constraint {name}: least", least, 0)
    if most is not None:
        check_count(f"constraint {name}: most", most, least)
    return least <= count and (most is None or count <= most)


def _count(text: str, phrase: str) -> int:
    pattern = r"\s+".join(map(re.escape, _check_phrase(phrase).split()))
    return len(re.findall(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE))


def _check_phrase(phrase: str) -> str:
    if not isinstance(phrase, str) or not phrase.strip():
        raise QreditError(f"a constraint's phrase must be a text that is not blank, got {phrase!r}")
    return phrase
