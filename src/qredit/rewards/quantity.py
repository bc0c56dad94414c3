"""A quantity: one exact number as people write it in text and LaTeX, with its unit, read without a computer algebra."""

import re
from dataclasses import dataclass, field
from fractions import Fraction

ROUNDING = Fraction(1, 10**6)
_MOST_DIGITS = 400  # of a literal, and of an exponent's value: more is left to whoever can bound the work

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_LITERAL = re.compile(rf"(?P<plain>{_PLAIN})(?:[eE](?P<power>[+-]?\d+))?")
_POWER_OF_TEN = re.compile(
    r"(?:\\times|\\cdot|[*xX])\s*10\s*\^\s*(?:\{\s*(?P<braced>[+-]?\s*\d+)\s*\}|(?P<bare>-?\d+))"
)
_BARE_POWER = re.compile(r"10\s*\^\s*(?:\{\s*(?P<braced>[+-]?\s*\d+)\s*\}|(?P<bare>\d+))")
_REPEATING = re.compile(r"(?P<whole>\d*)\.(?P<fixed>\d*)\\(?:overline|bar|dot)\s*\{?(?P<again>\d+)\}?")
_BELOW = re.compile(rf"\s*/\s*(?P<below>{_PLAIN})")
_FRAC = re.compile(rf"\\frac\s*\{{\s*(?P<above>-?\s*(?:{_PLAIN}))\s*\}}\s*\{{\s*(?P<below>-?\s*(?:{_PLAIN}))\s*\}}")
_SLASHED = re.compile(r"\s+(?P<above>\d+)\s*/\s*(?P<below>\d+)")
_SCALE = re.compile(r"\s*(hundred|thousand|million|billion|trillion)s?\b", re.IGNORECASE)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SIGN = re.compile(r"\s*([+-])\s*")
_CURRENCY = re.compile(r"\s*(?:(US|CA|AU|NZ|HK)?\\?\$|[£€¥₹₩₽]|USD|EUR|GBP)\s*")
_CURRENCIES = {"£": "pound", "€": "euro", "¥": "yen", "₹": "rupee", "₩": "won", "₽": "rouble",
               "USD": "dollar", "EUR": "euro", "GBP": "pound"}  # fmt: skip

# Names of one unit. Plurals and final stops are dropped first; what is not here stands for itself.
_UNITS = {
    name: unit
    for unit, names in {
        "%": "percent percentage pct", "dollar": "buck", "euro": "", "pound": "lb", "cent": "¢",
        "km": "kilometer kilometre", "m": "meter metre", "cm": "centimeter centimetre", "mm": "millimeter millimetre",
        "mile": "mi", "foot": "feet ft", "inch": "inche in", "yard": "yd",
        "kg": "kilogram kilo", "g": "gram gramme gm", "mg": "milligram", "ounce": "oz", "ton": "tonne",
        "s": "second sec", "min": "minute", "hour": "hr h", "day": "", "week": "wk", "year": "yr", "month": "",
        "l": "liter litre", "ml": "milliliter millilitre", "degree": r"\circ ^\circ deg", "rad": "radian",
        "mph": "mile/hour", "km/hour": "kph kmph kmh", "hz": "hertz", "n": "newton", "j": "joule", "w": "watt",
        "v": "volt", "unit": "",
    }.items()
    for name in (unit, *names.split())
}  # fmt: skip
_UNIT_WORD = re.compile(r"[^\W\d_]+\.?|%|¢")
_UNIT_SHAPE = re.compile(r"(?:[^\W\d_]|[%¢])(?:[^\W\d]|[ .%'/*^-]|\\cdot|(?<=[\^-])\{?-?\d\}?|(?<=\^)\{-?\d\})*")
_NOT_UNITS = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "be",
        "am",
        "not",
        "no",
        "if",
        "or",
        "and",
        "than",
        "but",
        "because",
        "since",
        "when",
        "so",
        "then",
        "as",
        "to",
        "from",
        "with",
        "without",
        "between",
        "more",
        "less",
        "fewer",
        "over",
        "under",
        "least",
        "most",
        "about",
        "plus",
        "minus",
        "times",
        "divided",
        "multiplied",
        "squared",
        "cubed",
        "factorial",
        "halves",
        "half",
        "thirds",
        "third",
        "quarters",
        "quarter",
        "fourths",
        "fifths",
        "sixths",
        "sevenths",
        "eighths",
        "ninths",
        "tenths",
        "hundredths",
        "thousandths",
        "dozen",
        "double",
        "doubled",
        "twice",
        "triple",
        "tripled",
        "percent-of",
        "mod",
        "modulo",
        "equals",
        "equal",
        "wrong",
        "incorrect",
        "correct",
        "choose",
        "either",
        "neither",
        "nor",
        "which",
        "that",
        "what",
        "it",
        "i",
        "we",
        "you",
        "he",
        "she",
        "they",
        "cannot",
    ]
)


@dataclass(frozen=True)
class Quantity:
    """An exact number and its unit.

    Attributes:
        value: the number itself; of "14%" it is 14.
        unit: its unit in one spelling, "" where there is none.
        decimal: whether it was written with a decimal point or exponent, and so may be rounded. No part of equality.
    """

    value: Fraction
    unit: str = ""
    decimal: bool = field(default=False, compare=False)


def are_equal(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities are one: the same unit, or only one has any; and the same number.

    Numbers are compared exactly. One exception: a number without a finite decimal, such as 1/3, agrees with a decimal
    that is within 1e-6 of it, relatively.
    """
    if one.unit and other.unit and one.unit != other.unit:
        return False
    return one.value == other.value or _rounds(one, other) or _rounds(other, one)


def _rounds(decimal: Quantity, exact: Quantity) -> bool:
    if not decimal.decimal or exact.decimal or is_finite_decimal(exact.value):
        return False
    return abs(decimal.value - exact.value) <= ROUNDING * abs(exact.value)


def is_finite_decimal(value: Fraction) -> bool:
    """True where the denominator has no prime factor but 2 and 5."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def read_quantity(text: str) -> Quantity | None:
    r"""The quantity that all of `text` stands for, or None.

    Read: sign, currency, thousands separators, exponents, `\times 10^{n}`, fractions, mixed numbers, repeating
    decimals, hundred to trillion, and a unit after it. Brackets around all of it are dropped.
    """
    text = text.strip()
    while text[:1] == "(" and text[-1:] == ")" and text.find(")") == len(text) - 1:
        text = text[1:-1].strip()
    negative, text = _signed(text)
    currency = _CURRENCY.match(text)
    if currency:
        inner, text = _signed(text[currency.end() :])
        negative ^= inner
    found = _value(text)
    if found is None:
        return None
    value, decimal, end = found
    scale = _SCALE.match(text, end)
    if scale:
        value, end = value * 10 ** _SCALES[scale[1].lower()], scale.end()
    unit = read_unit(text[end:])
    if unit is None or (currency and unit and unit != "dollar"):
        return None
    if currency:
        unit = _CURRENCIES.get(currency[0].strip(), (currency[1] or "").replace("US", "").lower() + "dollar")
    return Quantity(-value if negative else value, unit, decimal)


def read_unit(text: str) -> str | None:
    """The unit that `text`, what follows a number, stands for: "" for none; None where it is no unit."""
    spaced = text[:1].isspace()
    text = re.sub(r"\s*\^\s*(?!\\)", "^", text)
    text = re.sub(r"\s+", " ", text.replace("{", "").replace("}", "").replace("~", " ")).strip().rstrip(".")
    if not text:
        return ""
    if text in ("^\\circ", "\\circ"):
        return "degree"
    text = re.sub(r"^\^\\circ\s*", "degree ", text).strip()
    text = re.sub(r"\b(?:square|sq\.?) (\w+)", r"\1^2", re.sub(r"\bcubic (\w+)", r"\1^3", text))
    text = re.sub(r"\s*(?:\bper\b(?! cent)|/)\s*(?:an? )?", "/", text.replace("per cent", "percent"))
    words = [word.strip(".").lower() for word in _UNIT_WORD.findall(text)]
    if not _UNIT_SHAPE.fullmatch(text) or not 1 <= len(words) <= 4 or _NOT_UNITS & set(words):
        return None
    # "2x" and "2 x" are products; "2 m" is a length.
    letter = re.fullmatch(r"([^\W\d_])(?:\^-?\d)?", text)
    if letter and not (spaced and letter[1] in _UNITS):
        return None
    unit = _UNIT_WORD.sub(lambda found: _one_name(found[0]), text).lower()
    return _UNITS.get(unit, unit)


def _one_name(word: str) -> str:
    word = word.rstrip(".").lower()
    if word in _UNITS:
        return _UNITS[word]
    singular = word[:-1] if len(word) > 2 and word.endswith("s") else word
    return _UNITS.get(singular, singular)


def _signed(text: str) -> tuple[bool, str]:
    sign = _SIGN.match(text)
    return (sign[1] == "-", text[sign.end() :]) if sign else (False, text)


def _value(text: str) -> tuple[Fraction, bool, int] | None:
    """The number at the start of `text`, whether it is a decimal, and where it ends."""
    for read in (_repeating, _fraction, _power_of_ten, _literal):
        found = read(text)
        if found is not None:
            return found
    return None


def _repeating(text: str) -> tuple[Fraction, bool, int] | None:
    found = _REPEATING.match(text)
    if not found or len(found[0]) > _MOST_DIGITS:
        return None
    fixed, again = found["fixed"], found["again"]
    whole = Fraction(int(found["whole"] + fixed or "0"), 10 ** len(fixed))
    return whole + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(fixed)), False, found.end()


def _fraction(text: str) -> tuple[Fraction, bool, int] | None:
    found = _FRAC.match(text)
    return _quotient(found, found["above"]) if found else None


def _power_of_ten(text: str) -> tuple[Fraction, bool, int] | None:
    found = _BARE_POWER.match(text)
    if not found:
        return None
    power = _exponent(found)
    return None if power is None else (Fraction(10) ** power, False, found.end())


def _literal(text: str) -> tuple[Fraction, bool, int] | None:
    found = _LITERAL.match(text)
    if not found or len(found["plain"]) > _MOST_DIGITS or abs(int((found["power"] or "0")[:5])) > _MOST_DIGITS:
        return None
    value = Fraction(_digits(found["plain"])) * Fraction(10) ** int((found["power"] or "0")[:5])
    decimal, end = "." in found["plain"] or bool(found["power"]), found.end()
    if not decimal:
        parted = _FRAC.match(text, _after_space(text, end)) or _SLASHED.match(text, end)
        part = _quotient(parted, parted["above"]) if parted else None
        if part is not None and part[0] >= 0:
            return value + part[0], False, part[2]
    below = _BELOW.match(text, end)
    if below:
        part = _quotient(below, found["plain"])
        return None if part is None or found["power"] else part
    scaled = _POWER_OF_TEN.match(text, _after_space(text, end))
    if scaled:
        power = _exponent(scaled)
        return None if power is None else (value * Fraction(10) ** power, decimal, scaled.end())
    return value, decimal, end


def _after_space(text: str, start: int) -> int:
    return len(text) - len(text[start:].lstrip())


def _quotient(found: re.Match[str], above: str) -> tuple[Fraction, bool, int] | None:
    below = Fraction(_digits(found["below"]))
    # A quotient of whole numbers is exact; one of decimals may be rounded, as a decimal is.
    decimal = "." in above + found["below"]
    return (Fraction(_digits(above)) / below, decimal, found.end()) if below else None


def _exponent(found: re.Match[str]) -> int | None:
    digits = (found["braced"] or found["bare"]).replace(" ", "")
    return int(digits) if len(digits) <= 4 and abs(int(digits)) <= _MOST_DIGITS else None


def _digits(text: str) -> str:
    return re.sub(r"[,\s]", "", text)
