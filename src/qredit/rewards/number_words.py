"""English words for numbers and ranks: "twenty-one", "two thirds", "third", "21st"."""

import re
from fractions import Fraction

# fmt: off
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: value for value, word in enumerate(_ONES)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_IRREGULAR = {"first": "one", "second": "two", "third": "three", "fifth": "five", "eighth": "eight",
              "ninth": "nine", "twelfth": "twelve"}  # fmt: skip
_PARTS = {"half": 2, "halve": 2, "quarter": 4}
_RANK = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:st|nd|rd|th)\s*\}?", re.IGNORECASE)


def parse_cardinal(text: str) -> Fraction | None:
    """The number that `text` spells, as in "minus five", "one hundred and two", "two thirds"; None for other text."""
    words = [word for word in re.split(r"[\s-]+", text.lower().strip()) if word]
    if words[:1] in (["minus"], ["negative"]):
        value = parse_cardinal(" ".join(words[1:]))
        return None if value is None else -value
    whole = _whole(words)
    return Fraction(whole) if whole is not None else _part(words)


def parse_ordinal(text: str) -> int | None:
    """The rank that `text` names, as in "third", "twenty-first" or "21st"; None for other text."""
    found = _RANK.fullmatch(text.strip())
    if found:
        return int(found[1]) if len(found[1]) < 20 else None
    words = re.split(r"[\s-]+", text.lower().strip())
    return _whole([*words[:-1], base]) if (base := _counted(words[-1])) else None


def _counted(word: str) -> str | None:
    """The cardinal of an ordinal word: "third" is "three", "twentieth" "twenty"."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    base = re.sub(r"ieth$", "y", word)
    base = base.removesuffix("th") if base == word else base
    return base if base != word and base in {*_SMALL, *_LARGE, "hundred"} else None


def _part(words: list[str]) -> Fraction | None:
    """ "one half", "half", "three quarters", "two thirds"."""
    if not words:
        return None
    last = words[-1].removesuffix("s")
    below = _PARTS.get(last) or (_whole([base]) if (base := _counted(last)) and last != "second" else None)
    counted = words[:-1]
    above = 1 if counted in (["a"], []) and last in ("half", "quarter") else _whole(counted)
    return Fraction(above, below) if above is not None and below else None


def _whole(words: list[str]) -> int | None:
    """A whole number in words, by the usual grammar: below a thousand, then its scale, scales falling."""
    if words == ["zero"]:
        return 0
    total, rest, last = 0, words, 10**15
    while rest:
        group, rest = _below_thousand(rest)
        scale = _LARGE.get(rest[0], 1) if rest else 1
        if group is None or scale >= last:
            return None
        total, last = total + group * scale, scale
        rest = rest[1:] if scale > 1 else rest
        if scale == 1 and rest:
            return None
        rest = rest[1:] if len(rest) > 1 and rest[0] == "and" else rest
    return total if words else None


def _below_thousand(words: list[str]) -> tuple[int | None, list[str]]:
    value, rest = None, words
    if len(rest) > 1 and rest[1] == "hundred" and (rest[0] == "a" or 0 < _SMALL.get(rest[0], 0) < 20):
        value, rest = 100 * _SMALL.get(rest[0], 1), rest[2:]
        rest = rest[1:] if len(rest) > 1 and rest[0] == "and" and rest[1] in _SMALL else rest
    if rest and rest[0] in _SMALL and _SMALL[rest[0]]:
        more, rest = _SMALL[rest[0]], rest[1:]
        if more >= 20 and rest and 0 < _SMALL.get(rest[0], 0) < 10:
            more, rest = more + _SMALL[rest[0]], rest[1:]
        value = (value or 0) + more
    elif value is None and rest and rest[0] == "a" and len(rest) > 1 and rest[1] in _LARGE:
        value, rest = 1, rest[1:]
    return value, rest
