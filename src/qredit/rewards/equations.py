"""Equations of numbers in a text, such as 12 + 30 = 42, recomputed exactly. The text is untrusted: nothing is run."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from qredit.rewards.exact_arithmetic import calculate

# What people and models write for the same sign; $ and £ say nothing of a number's size.
_SPELLINGS: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(found, re.MULTILINE), put)
    for found, put in (
        (r"^[^\S\n]*[-*+•]\s+", ""),  # the mark of a list is no sign of a number
        (r"\\[dt]?frac\s*\{\s*([\d.]+)\s*\}\s*\{\s*([\d.]+)\s*\}", r"(\1/\2)"),
        (r"\\left\b|\\right\b|\\[,;:! ]|\\?[$£€]", " "),
        (r"(?<=[\d)])\s*(?:[xX×·⋅]|\\times|\\cdot)\s*(?=[\d(.])", "*"),
        (r"\\div|÷", "/"),
        (r"\\approx|≈", "~"),
        (r"[−–]", "-"),
        (r"\\%", "%"),
        (r"(?<=\d)[^\S\n]+%", "%"),
        (r"\band an? (?=half|third|quarter)", ""),
        (r"\^", "**"),
    )
)
_TOKEN = re.compile(
    r"(?P<word>[^\W\d_][\w']*\(?|\d[\d.,]{0,99}[^\W\d]\w*"  # 7kg and 2x are words, and so is what calls: f(
    r"|\d+(?::\d+)+|(?!\d{1,3}(?:,\d{3})+(?![\d,]))\d+(?:,\d+)+)"  # and 12:30, and 2,5, which is two numbers or one
    r"|(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?%?|\.\d+%?)"
    r"|(?P<operation>\*\*|[-+*/()])|(?P<equal>[=~]+)|(?P<other>\n|\S)"
)
_LITERAL = re.compile(r"(?:- )?[\d,]*(?:\.(?P<decimals>\d+))?%?")
# Where one of these stands beside a number, the number is not the whole side of an equation.
_BEFORE = frozenset(
    (
        *("of", "times", "plus", "minus", "by", "over", "less", "than", "per", "mod", "modulo", "choose", "root"),
        *("sqrt", "log", "ln", "lg", "exp", "sin", "cos", "tan", "floor", "ceil", "abs"),
        *("twice", "double", "half", "triple"),
    )
)
_BEHIND = frozenset(
    (
        *("times", "plus", "minus", "percent", "of", "hundred", "thousand", "million", "billion", "dozen", "divided"),
        *("multiplied", "mod", "modulo", "remainder", "rem", "with", "half", "third", "quarter", "thirds", "quarters"),
        *("squared", "cubed", "factorial", "to", "choose", "less", "more"),
    )
)
# Between these marks and a number a sentence begins or ends; any other mark, such as √ or !, may belong to the number.
_ENDS_BEFORE = frozenset("\n.,:;?!\"'`“”‘’([{<>…→⇒∴&")
_ENDS_BEHIND = frozenset("\n.,:;?\"'`“”‘’)]}<>…→⇒∴&°≠≤≥✓✔✅")
_PERCENT = re.compile(r"([\d.,]+)%")
_INSIDE = ("number", "operation", "equal")
_OPERATIONS = ("+", "-", "*", "/", "**")
_Token = tuple[str, str]  # kind and text
_NOTHING: _Token = ("", "")


@dataclass(frozen=True)
class Equation:
    """Two sides that a text says are equal.

    Attributes:
        left, right: arithmetic, as `calculate` reads it, with percentages.
        about: the sign says that they are about equal.
    """

    left: str
    right: str
    about: bool = False


def judge_equations(text: str) -> bool | None:
    """Whether the equations of a text hold: False if one does not, None if there is none that can be computed.

    An equation is read only where both sides are numbers alone and one of them has an operation. Nothing is said of
    x + 3 = 5, of 50 = 10, or of a side that words go on with, such as half of 20 + 30. A number with decimals may be
    rounded: 10 / 3 = 3.33 holds, 7 / 2 = 4 does not. Behind ≈ a whole number may be rounded, too. A percentage stands
    for its hundredth or for its number: 5 / 20 = 25% holds, and so does 5 / 20 * 100 = 25%.

    Args:
        text: such as a step of a rationale.
    """
    found = [holds for one in find_equations(text) if (holds := check_equation(one)) is not None]
    return all(found) if found else None


def find_equations(text: str) -> Iterator[Equation]:
    """The equations of a text, in order; of a chain a = b = c those of neighbours."""
    for pattern, put in _SPELLINGS:
        text = pattern.sub(put, text)
    tokens = ((str(one.lastgroup), one[0]) for one in _TOKEN.finditer(text))
    runs = [(inside, list(run)) for inside, run in itertools.groupby(tokens, lambda token: token[0] in _INSIDE)]
    for number, (inside, run) in enumerate(runs):
        if inside:
            before = runs[number - 1][1][-1] if number else _NOTHING
            behind = runs[number + 1][1][0] if number + 1 < len(runs) else _NOTHING
            yield from _read_run(run, before, behind)


def check_equation(one: Equation) -> bool | None:
    """Whether the sides are equal; None where one cannot be computed. See `judge_equations`."""
    try:
        left, right = _compute(one.left, one.about), _compute(one.right, one.about)
    except ValueError:
        return None
    return any(abs(a - b) <= max(slack, other) for a, slack in left for b, other in right)


def _read_run(run: Sequence[_Token], before: _Token, behind: _Token) -> Iterator[Equation]:
    """The equations of numbers and signs in a row.

    Args:
        run: the tokens.
        before, behind: the tokens around it.
    """
    sides: list[list[str]] = [[]]
    signs = []
    for kind, text in run:
        if kind == "equal":
            signs.append(text)
            sides.append([])
        else:
            sides[-1].append(text)
    _drop_brackets_around(sides)
    if _goes_on_before(before, sides[0]):
        sides[0] = []
    if _goes_on_behind(behind):
        sides[-1] = []
    for sign, left, right in zip(signs, sides, sides[1:], strict=False):
        if left and right and (_has_operation(left) or _has_operation(right)):
            yield Equation(" ".join(left), " ".join(right), about="~" in sign)


def _drop_brackets_around(sides: Sequence[list[str]]) -> None:
    """Take off brackets that are opened before an equation and closed behind it."""
    first, last = sides[0], sides[-1]
    opened = max(first.count("(") - first.count(")"), 0)
    del first[: min(opened, _count_leading("(", first))]
    closed = max(last.count(")") - last.count("("), 0)
    del last[len(last) - min(closed, _count_leading(")", last[::-1])) :]


def _count_leading(mark: str, texts: Sequence[str]) -> int:
    """How many texts in a row, from the first on, are this one."""
    return next((place for place, text in enumerate(texts) if text != mark), len(texts))


def _goes_on_before(before: _Token, side: Sequence[str]) -> bool:
    """Whether a first side is the end of something longer."""
    kind, text = before
    signed = side[:1] != [] and side[0] in _OPERATIONS
    if kind == "other":
        return text not in _ENDS_BEFORE or (signed and text == "!")
    return kind == "word" and (signed or text.casefold() in _BEFORE or not text[0].isalpha())


def _goes_on_behind(behind: _Token) -> bool:
    """Whether a last side is the beginning of something longer."""
    kind, text = behind
    if kind == "other":
        return text not in _ENDS_BEHIND
    return kind == "word" and (len(text) == 1 or text[1:].isdecimal() or text.casefold() in _BEHIND)


def _has_operation(side: Sequence[str]) -> bool:
    return any(text in _OPERATIONS for text in side[1:])


def _compute(side: str, about: bool) -> list[tuple[Fraction, Fraction]]:
    """The values that a side may stand for, each with the most that it may be off by rounding.

    Raises:
        ValueError: as `calculate`.
    """
    literal = _LITERAL.fullmatch(side)
    decimals = len(literal["decimals"] or "") if literal else 0
    slack = Fraction(1, 2 * 10**decimals) if literal and (decimals or about) else Fraction(0)
    values = [(calculate(side.replace("%", "")), slack)]
    if "%" in side:
        values.append((calculate(_PERCENT.sub(r"(\1/100)", side)), slack / 100))
    return values
