r"""What a mathematical answer is: a quantity, list, set, tuple, interval, matrix, equation, words …, read from text.

`parse_math` turns a text into one of the classes below, or None where it cannot be told what the text says. Nothing is
evaluated. A formula stays text in an `Expression`, for a computer algebra to compare.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qredit.rewards.number_words import parse_cardinal, parse_ordinal
from qredit.rewards.quantity import Quantity, read_quantity

MAX_CHARACTERS = 2000  # characters of an answer; a longer one is no answer
_LONGEST_FORMULA = 300
_DEEPEST = 30  # brackets within brackets


@dataclass(frozen=True)
class PlainWords:
    """Plain words, in lower case: compared letter for letter."""

    text: str


@dataclass(frozen=True)
class Expression:
    """A formula, an equation or a relation, as LaTeX."""

    latex: str


@dataclass(frozen=True)
class Ordinal:
    """A rank: "3rd"."""

    rank: int


@dataclass(frozen=True)
class MultipleValues:
    """Several values.

    Attributes:
        kind: "list" (several answers, in any order), "set", "tuple", "ratio", "range", "to" (a range or a ratio),
            "rows" (a matrix of rows), "row", "union" (of intervals).
        members: the values, in the order in which they are written.
        unit: what stands behind all of them, as "pm" in "3:05 pm".
    """

    kind: str
    members: tuple["Reading", ...]
    unit: str = ""


@dataclass(frozen=True)
class Interval:
    """The numbers from `low` to `high`, and whether each end belongs to them."""

    low: "Reading"
    high: "Reading"
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True)
class SetDifference:
    """Everything in `whole` except the `excepted`."""

    whole: "Reading"
    excepted: "Reading"


@dataclass(frozen=True)
class NamedValue:
    """A value with its name: "x = 5", "f(x) = …"; an interval for "x > 3"."""

    name: str
    value: "Reading"


Reading = Quantity | PlainWords | Expression | Ordinal | MultipleValues | Interval | SetDifference | NamedValue

INFINITY, MINUS_INFINITY = Expression(r"\infty"), Expression(r"-\infty")
_REALS = Interval(MINUS_INFINITY, INFINITY, low_closed=False, high_closed=False)
_ALIASES: dict[str, Reading] = {
    **dict.fromkeys(("infinity", "positive infinity", r"\infty", r"+\infty", r"+ \infty"), INFINITY),
    **dict.fromkeys(("minus infinity", "negative infinity", r"-\infty", r"- \infty", "-infinity"), MINUS_INFINITY),
    **dict.fromkeys((r"\emptyset", "empty set", "{}", r"\{\}", r"\{ \}"), MultipleValues("set", ())),
    **dict.fromkeys((r"\mathbb{R}", "all real numbers", "all reals", "real numbers"), _REALS),
    "pi": Expression(r"\pi"),
}


# --- LaTeX without what is only there to be seen


_WRAPPERS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|normal)|bold(?:symbol)?|operatorname\*?|mbox|hbox"
    r"|emph|boxed|fbox|displaystyle|underline)\s*\{"
)
_DROPPED = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|rm|bf|it)(?![A-Za-z])")
# Not the second backslash of "\\", which ends a row.
_SPACES = re.compile(r"(?<!\\)\\(?:[,;: ]|quad|qquad|enspace|thinspace)|~|\s+")
_SYNONYMS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\le(?:q|qslant)(?![A-Za-z])|=<|<=", r"\\le "),
        (r"\\ge(?:q|qslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"\\(?:lbrace|lbrack)(?![A-Za-z])", r"\\{"),
        (r"\\(?:rbrace|rbrack)(?![A-Za-z])", r"\\}"),
        (r"\\(?:degree|textdegree)(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        (r"\\textdollar(?![A-Za-z])", "$"),
        (r"\\R(?![A-Za-z])|\\mathbb\s+R|\\mathbb\s*\{\s*R\s*\}", r"\\mathbb{R}"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"(?<!\\)\\!", ""),
        (r"\\%", "%"),
        (r"\\\$", "$"),
        (r"\{,\}", ","),
        (r"(?<=\d)\\,(?=\d{3}(?!\d))", ","),
        (r"\\operatorname\s*\{(sin|cos|tan|ln|log|exp)\}", r"\\\1 "),
        (r"\*\*", "^"),
    )
)


def normalize_latex(text: str) -> str:
    r"""LaTeX with one spelling for each command, and without delimiters, sizes, fonts and spacing."""
    text = _undelimited(text)
    for pattern, replacement in _SYNONYMS:
        text = pattern.sub(replacement, text)
    text = _DROPPED.sub(" ", text)
    text = _unwrapped(text)
    return _SPACES.sub(" ", text).strip()


def _undelimited(text: str) -> str:
    r"""Without $…$, \(…\) and \[…\]. A dollar before a digit, without a partner that closes a formula, is money."""
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text).replace("$$", " ")
    pairs = r"(?<![\\$])\$(?!\s)((?:\\.|[^$\\])*?)(?<![\s\\])\$(?!\d)"
    return re.sub(pairs, r" \1 ", text)


def _unwrapped(text: str) -> str:
    while found := _WRAPPERS.search(text):
        end = find_closing_brace(text, found.end() - 1)
        if end is None:
            return text
        text = f"{text[: found.start()]} {text[found.end() : end]} {text[end + 1 :]}"
    return text


def find_closing_brace(text: str, start: int) -> int | None:
    """Where the brace at `start` is closed; None where it is not."""
    depth, index = 0, start
    while index < len(text):
        if text[index] == "\\":
            index += 1
        else:
            depth += (text[index] == "{") - (text[index] == "}")
            if depth == 0:
                return index
        index += 1
    return None


# --- from text to readings


_STOP = re.compile(r"[\s.;,!?:*]+$")
_TIME = re.compile(r"(.*\d)\s*([ap])\.?\s?m\.?", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
_FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "ln",
        "log",
        "exp",
        "sqrt",
        "pi",
        "lim",
        "max",
        "min",
        "mod",
        "gcd",
        "lcm",
        "det",
        "alpha",
        "beta",
        "gamma",
        "delta",
        "theta",
        "lambda",
        "mu",
        "phi",
        "omega",
        "infty",
        "dx",
        "dy",
        "dt",
    ]
)
_LITTLE = frozenset({
    "is", "it", "so", "we", "of", "to", "in", "at", "or", "if", "as", "be", "no", "an", "on", "by", "he", "my",
    "the", "and", "are", "was", "has", "had", "for", "not", "but", "its", "get", "got", "you", "she", "one", "all",
})  # fmt: skip
_AND_OR = re.compile(r"\s*[,;]?\s*(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])\s*")
_LEAD = re.compile(r"(?:either|both|from|between|the ratio(?: of)?|the|an?|about|approximately)\s+", re.IGNORECASE)
_BASED = re.compile(r"([0-9A-Fa-f]+)\s*_\s*\{?\s*(\d{1,3}|[a-z]{3,})\s*\}?")
_CODE = re.compile(r"(?:[A-Z][a-z]?(?:\s*_\s*\{\d+\}|_?\d+)?)+")  # H2O, B12: a name, no product
_LABELLED = re.compile(r"([A-Za-z][A-Za-z ]{0,30}?)\s*:\s+(.+)")
_PARTS = re.compile(r"\(?([a-h])\)\s*")
_RANGE = re.compile(r"(\$?[\d.,]+%?)\s*(?:-+|\bto\b|(?<=\d)\s+and(?= ))\s*(\$?[\d.,]+%?)(\s*[^\d]*)")
_MATRIX = re.compile(r"\\begin\s*\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr|]+\})?(.*)\\end\s*\{\1\}", re.DOTALL)
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx)(?![A-Za-z])|[=<>]")
_NAME = re.compile(
    r"(?:\\?[A-Za-z]+|\\(?:angle|triangle|overline|vec|hat)\s*\{?\s*[A-Za-z]+\s*\}?)"
    r"(?:_\s*(?:\{[^{}]*\}|\w))?'*(?:\s*\(\s*\\?[A-Za-z]+(?:\s*,\s*\\?[A-Za-z]+)*\s*\))?"
    r"|\(\s*\\?[A-Za-z]+(?:\s*,\s*\\?[A-Za-z]+)+\s*\)|[A-Za-z]+(?: [A-Za-z]+){1,3}"
)
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}
_OPEN = ("<", ">")


def parse_math(text: str) -> Reading | None:
    """What `text`, as `normalize_latex` leaves it, stands for; None where that cannot be told: blank, too long, or
    words with several numbers.
    """
    text = _STOP.sub("", text.strip()) if not text.strip().endswith(("!", "\\")) else text.strip().rstrip(".")
    if not text or len(text) > MAX_CHARACTERS or _depth(text) > _DEEPEST:
        return None
    if re.search(r"\begin\s*\{[vV]matrix", text):  # a determinant or norm, which math-verify takes for its matrix
        return None
    for reader in (_alias, _ranked, _words, read_quantity, _matrix, _based, _clock, _range, _bracketed, _union):
        found = reader(text)
        if found is not None:
            return found
    for divide in (_listed, _related):
        parts = divide(text)
        if parts is not None:
            return parts[0]
    if r"\pm" in text or _is_prose(text):
        return _plus_minus(text) or _prose(text)
    return Expression(_formula(text)) if len(text) <= _LONGEST_FORMULA else None


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _alias(text: str) -> Reading | None:
    return _ALIASES.get(re.sub(r"^the ", "", text.lower()) if text.lower() not in _ALIASES else text.lower()) or (
        _ALIASES.get(text)
    )


def _ranked(text: str) -> Ordinal | None:
    rank = parse_ordinal(re.sub(r"^the\s+", "", text.lower()))
    return None if rank is None else Ordinal(rank)


def _words(text: str) -> Reading | None:
    """A number in words, a choice, or words without a digit and without mathematics."""
    letter = re.fullmatch(r"(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s+)?\(?\s*([A-Ha-h])\s*\)?", text)
    named = _CODE.fullmatch(text)
    if named and re.search(r"\d", text):
        return PlainWords(re.sub(r"[_{}\s]", "", text).lower())
    if letter:
        return PlainWords(letter[1].lower())
    number = parse_cardinal(_LEAD.sub("", text, count=1) if text.lower().startswith("the ") else text)
    if number is not None:
        return Quantity(number)
    if re.search(r"\d|[\\=<>+^_{}|]", text) or not _is_prose(text) or _AND_OR.search(text) or "," in text:
        return None
    return PlainWords(normalize_words(text))


def normalize_words(text: str) -> str:
    """Words in lower case, without a leading article, outer brackets, quotes and stops, and doubled spaces."""
    squeezed = " ".join(text.lower().replace(".", "").split()).strip(" .,;:!?\"'*()")
    return re.sub(r"^(?:an?|the)\s+(?=\S)", "", squeezed)


def _is_prose(text: str) -> bool:
    return any(word.lower() not in _FUNCTIONS and _counts(word, text) for word in _WORD.findall(_commands_out(text)))


def _counts(word: str, text: str) -> bool:
    """Two or three letters in a formula may be a product of symbols; longer, alone or usual ones are a word."""
    return (
        len(word) > 3
        or word == text
        or word.lower() in _LITTLE
        or not re.search(r"[\\=<>+^_*/-]|\d[A-Za-z]|[A-Za-z]\(", text)
    )


def _commands_out(text: str) -> str:
    return re.sub(r"\\(?:begin|end)\s*\{[a-zA-Z]*\}|\\[A-Za-z]+", " ", text)


def _prose(text: str) -> Reading | None:
    """Words with at most one number, as in "Apollo 11"; with several it cannot be told what is asked."""
    return (
        None if len(_NUMBER.findall(text)) > 1 or re.search(r"[=<>]|\\pm", text) else PlainWords(normalize_words(text))
    )


def _matrix(text: str) -> Reading | None:
    found = _MATRIX.fullmatch(text)
    if not found or r"\begin" in found[2]:
        return None
    rows = [row for row in re.split(r"\\\\", found[2]) if row.strip()]
    cells = [tuple(parse_math(cell) for cell in row.split("&")) for row in rows]
    if not cells or any(cell is None for row in cells for cell in row):
        return None
    return MultipleValues("rows", tuple(MultipleValues("row", row) for row in cells))  # type: ignore[arg-type]


def _based(text: str) -> Reading | None:
    found = _BASED.fullmatch(text)
    base = found and (int(found[2]) if found[2].isdecimal() else parse_cardinal(found[2]))
    return PlainWords(f"{found[1].lower().lstrip('0') or '0'}_{base}") if found and base else None


def _clock(text: str) -> Reading | None:
    """Ratios and times: two or more values with colons between them."""
    timed = _TIME.fullmatch(text)
    text, half = (timed[1], timed[2].lower() + "m") if timed else (re.sub(r"^the ratio\s+(?:of )?", "", text), "")
    parts = split_outside_brackets(text, ":")
    if len(parts) < 2 and not half:
        return None
    # "3:05" is a time: its "05" is no 5.
    members = [
        PlainWords(p.strip()) if i and re.fullmatch(r"0\d", p.strip()) else parse_math(p) for i, p in enumerate(parts)
    ]
    if not all(
        isinstance(m, Quantity | Expression) or (isinstance(m, PlainWords) and m.text.isdecimal()) for m in members
    ):
        return None
    return MultipleValues("ratio", tuple(members), half)  # type: ignore[arg-type]


def _range(text: str) -> Reading | None:
    lead = _LEAD.match(text)
    found = _RANGE.fullmatch(text[lead.end() :] if lead else text)
    if not found or (" and " in text and not text.lower().startswith("between ")):
        return None
    low, high = read_quantity(found[1]), read_quantity(found[2] + found[3])
    if low is None or high is None:
        return None
    ends = (Quantity(low.value), Quantity(high.value))
    return MultipleValues("to" if " to " in text else "range", ends, high.unit or low.unit)


def _bracketed(text: str) -> Reading | None:
    r"""Sets, tuples, intervals: one pair of brackets around everything."""
    opening = re.match(r"\\\{|[{(\[]", text)
    if not opening:
        return None
    close = re.search(r"(\\\}|[})\]])$", text)
    inner = text[opening.end() : close.start()] if close else ""
    if not close or not _is_balanced(inner):
        return None
    if opening[0] == "{" and inner.strip() and len(split_outside_brackets(inner, ",")) == 1:
        return parse_math(inner)  # {14} only groups, as LaTeX does
    if "{" in opening[0]:
        return _set(inner) if "}" in close[0] else None
    parts = split_outside_brackets(inner, ",", thousands=False)
    if len(parts) == 1 and (opening[0], close[0]) == ("(", ")"):
        return parse_math(inner)
    members = [parse_math(part) for part in parts]
    if any(member is None for member in members) or len(members) < 2:
        return None
    if (opening[0], close[0]) == ("(", ")") and INFINITY not in members and MINUS_INFINITY not in members:
        return MultipleValues("tuple", tuple(members))  # type: ignore[arg-type]
    if len(members) != 2:
        return MultipleValues("tuple", tuple(members)) if (opening[0], close[0]) == ("[", "]") else None  # type: ignore[arg-type]
    return Interval(members[0], members[1], opening[0] == "[", close[0] == "]")  # type: ignore[arg-type]


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _set(inner: str) -> Reading | None:
    built = re.fullmatch(r"\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid|\\vert|\||:)(.*)", inner)
    if built:
        return parse_math(built[2])
    found = _listing(split_outside_brackets(inner, ",", thousands=False)) if inner.strip() else ()
    return None if found is None else MultipleValues("set", found)


def _union(text: str) -> Reading | None:
    for sign, kind in ((r"\cup", "union"), (r"\setminus", "without")):
        parts = split_outside_brackets(text, sign)
        members = [parse_math(part) for part in parts] if len(parts) > 1 else []
        if not members or any(not isinstance(member, Interval | MultipleValues | SetDifference) for member in members):
            continue
        if kind == "union":
            return _united([as_interval(member) for member in members])  # type: ignore[arg-type]
        return SetDifference(members[0], members[1]) if len(members) == 2 else None  # type: ignore[arg-type]
    return None


def _united(members: Sequence[Reading]) -> Reading:
    if all(isinstance(member, MultipleValues) and member.kind == "set" for member in members):
        return MultipleValues("set", tuple(inner for member in members for inner in member.members))  # type: ignore[union-attr]
    return MultipleValues("union", tuple(members))


def as_interval(reading: Reading) -> Reading:
    """A pair in round brackets, where an interval is meant."""
    if isinstance(reading, MultipleValues) and reading.kind == "tuple" and len(reading.members) == 2:
        low, high = reading.members
        return Interval(low, high, low_closed=False, high_closed=False)
    return reading


def _listed(text: str) -> tuple[Reading | None] | None:
    """Several answers with commas, semicolons, "and" or "or" between them; None where there is only one."""
    text = _labels(text)
    joined = _AND_OR.sub(" ; ", re.sub(r"^(?:either|both)\s+", "", text, flags=re.IGNORECASE))
    parts = split_outside_brackets(joined, ";") if ";" in joined else [joined]
    parts = [piece for part in parts for piece in split_outside_brackets(part, ",")]
    if len(parts) < 2:
        return None
    members = _listing([part for part in parts if part.strip()])
    if members is None or _is_mixed(members):
        return (None if _NUMBER.search(text) else PlainWords(normalize_words(text)),)
    return (_gathered(members, text),)


def _labels(text: str) -> str:
    """(a) 3 (b) 5 as named values: a = 3; b = 5."""
    labels = _PARTS.findall(text)
    if not _PARTS.match(text) or labels != list("abcdefgh"[: len(labels)]) or len(labels) < 2:
        return text
    pieces = _PARTS.split(text)[1:]
    return "; ".join(f"{name} = {value.strip(' ,;.')}" for name, value in zip(pieces[::2], pieces[1::2], strict=True))


def _listing(parts: Sequence[str]) -> tuple[Reading, ...] | None:
    found: list[Reading] = []
    for part in parts:
        member = parse_math(part)
        if member is None:
            return None
        found += member.members if isinstance(member, MultipleValues) and member.kind == "list" else [member]
    return tuple(found)


def _is_mixed(members: Sequence[Reading]) -> bool:
    """Whether the members are no values of one kind: words with numbers, or quantities of several units."""
    units = {member.unit for member in members if isinstance(member, Quantity)} - {""}
    words = [member.text for member in members if isinstance(member, PlainWords)]
    lettered = [word for word in words if len(word) > 1]
    return len(units) > 1 or any(map(_NUMBER.search, words)) or bool(lettered and len(words) < len(members))


def _gathered(members: tuple[Reading, ...], text: str) -> Reading | None:
    """Values under one name become that name's list; relations joined by "or" a union."""
    names = {member.name for member in members if isinstance(member, NamedValue)}
    if len(names) != 1:
        return MultipleValues("list", members)
    values = tuple(member.value if isinstance(member, NamedValue) else member for member in members)
    if not all(isinstance(value, Interval) for value in values):
        return NamedValue(names.pop(), MultipleValues("list", values))
    if re.search(r"\bor\b", text):
        return NamedValue(names.pop(), MultipleValues("union", values))
    return (
        NamedValue(names.pop(), MultipleValues("list", values))
        if len(values) != 2
        else NamedValue(names.pop(), _meet(*values))
    )


def _meet(one: Reading, other: Reading) -> Reading:
    """x > 1 and x < 3: the interval between, where one gives the low end and the other the high one."""
    assert isinstance(one, Interval)
    assert isinstance(other, Interval)
    low, high = (one, other) if other.low == MINUS_INFINITY else (other, one)
    if low.high != INFINITY or high.low != MINUS_INFINITY:
        return MultipleValues("list", (one, other))
    return Interval(low.low, high.high, low.low_closed, high.high_closed)


def _related(text: str) -> tuple[Reading | None] | None:
    """Equations, inequalities and memberships; None where there is no sign of relation outside brackets."""
    if re.search(r"\\equiv", text):
        return (PlainWords(re.sub(r"\\pmod\s*\{?\s*(\w+)\s*\}?|[{}\s]", r"\1", text)),)
    sides, signs = _sides(text)
    labelled = _LABELLED.fullmatch(text)
    if not signs and labelled:
        sides, signs = [labelled[1], labelled[2]], ["="]
    if not signs:
        return None
    if set(signs) <= {"=", r"\approx"}:
        return (_equation(sides, text),)
    return (_relation(sides, signs, text),)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and not re.search(r"\b(?:is|are|was|were|equals?)\b", text)


def _sides(text: str) -> tuple[list[str], list[str]]:
    sides, signs, start = [], [], 0
    for found in _RELATION.finditer(text):
        if _is_balanced(text[start : found.start()]):
            sides.append(text[start : found.start()].strip())
            signs.append(found[0])
            start = found.end()
    return [*sides, text[start:].strip()], signs


def _equation(sides: Sequence[str], text: str) -> Reading | None:
    if not all(sides):
        return None
    if _is_name(sides[-1]) and not _is_name(sides[0]) and isinstance(parse_math(sides[0]), Quantity):
        sides = sides[::-1]
    first, last = sides[0], sides[-1]
    if _is_name(first):
        value = parse_math(last)
        return None if value is None or isinstance(value, NamedValue) else NamedValue(_name(first), value)
    if _is_prose(text):
        return None
    # 10 + 20 = 30: its value is what it comes to.
    if not re.search(r"[A-Za-z]", _commands_out(first)):
        return parse_math(last)
    return Expression("=".join(_formula(side) for side in (first, last)))


def _name(text: str) -> str:
    return re.sub(r"[\s{}]", "", text) if len(text) < 8 else text.lower()


def _relation(sides: Sequence[str], signs: Sequence[str], text: str) -> Reading | None:
    if len(sides) == 2 and signs == [r"\in"] and _is_name(sides[0]):
        value = parse_math(sides[1])
        return None if value is None else NamedValue(_name(sides[0]), as_interval(value))
    if len(sides) == 2 and not _is_name(sides[0]) and _is_name(sides[1]) and signs[0] in _FLIPPED:
        sides, signs = sides[::-1], [_FLIPPED[signs[0]]]
    if len(sides) == 2 and _is_name(sides[0]):
        return _half_line(_name(sides[0]), signs[0], parse_math(sides[1]))
    if len(sides) == 3 and _is_name(sides[1]):
        return _between(sides, signs)
    return None if _is_prose(text) else Expression(_formula(text))


def _half_line(name: str, sign: str, bound: Reading | None) -> Reading | None:
    if bound is None:
        return None
    if sign == r"\ne":
        return NamedValue(name, SetDifference(_REALS, MultipleValues("set", (bound,))))
    low = sign in (">", r"\ge")
    start, end = (bound, INFINITY) if low else (MINUS_INFINITY, bound)
    return NamedValue(name, Interval(start, end, low_closed=sign == r"\ge", high_closed=sign == r"\le"))


def _between(sides: Sequence[str], signs: Sequence[str]) -> Reading | None:
    if signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], [_FLIPPED.get(sign, sign) for sign in signs[::-1]]
    low, high = parse_math(sides[0]), parse_math(sides[2])
    if low is None or high is None or not set(signs) <= {"<", r"\le"}:
        return None
    return NamedValue(_name(sides[1]), Interval(low, high, signs[0] == r"\le", signs[1] == r"\le"))


def _plus_minus(text: str) -> Reading | None:
    if text.count(r"\pm") != 1 or _is_prose(text):
        return None
    before, after = text.split(r"\pm")
    values = _listing([f"{before}+{after}" if before.strip() else after, f"{before}-{after}"])
    return None if values is None else MultipleValues("list", values)


def split_outside_brackets(text: str, sign: str, *, thousands: bool = True) -> list[str]:
    """The parts of `text` between `sign`s outside brackets. With `thousands`, the comma of "1,000" divides nothing.

    Args:
        text: to be divided.
        sign: one character.
        thousands: a comma between digits groups them.
    """
    parts, depth, start, index = [], 0, 0, 0
    while index < len(text):
        if depth == 0 and text.startswith(sign, index) and not (thousands and sign == "," and _groups(text, index)):
            parts.append(text[start:index])
            start = index = index + len(sign)
            continue
        depth += (text[index] in "([{") - (text[index] in ")]}")
        index += 1
    return [*parts, text[start:]]


def _groups(text: str, comma: int) -> bool:
    before = re.search(r"(?<![\d.])\d{1,3}(?:,\d{3})*$", text[:comma])
    return bool(before and re.match(r",\d{3}(?!\d)", text[comma:]))


_CALLS = re.compile(
    r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|ln|log|exp|pi|sqrt)(?![A-Za-z])"
)
_ROOT_OF = re.compile(r"\\sqrt\s*(?:(\d+(?:\.\d+)?|[A-Za-z])(?![\w{])|\(([^()]*)\))")


def _formula(text: str) -> str:
    r"""A formula with commands for the functions that it names in letters, and braces around a root."""
    text = _CALLS.sub(lambda found: rf"\{found[1]} ", text)
    text = _ROOT_OF.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    return re.sub(r"\s+", " ", text.replace("*", r"\cdot ")).strip()


def iter_parts(reading: Reading) -> tuple[Reading, ...]:
    """The parts that a reading is made of, for whoever walks over it."""
    match reading:
        case MultipleValues():
            return reading.members
        case Interval():
            return (reading.low, reading.high)
        case SetDifference():
            return (reading.whole, reading.excepted)
        case NamedValue():
            return (reading.value,)
        case _:
            return ()
