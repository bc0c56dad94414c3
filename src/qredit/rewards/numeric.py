"""A scorer for answers that are one number, or yes or no."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from qredit.rewards.answer_scorer import score_best
from qredit.rewards.characters import normalize_characters
from qredit.rewards.text import normalize_answer

TOLERANCE = Decimal("0.005")
_POWERS = {"%": -2, "percent": -2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NUMBER = re.compile(
    r"""(?<![\w.,:/$€£¥+\-−])                                # not the tail of a word, a number or a price
        (?P<sign>[+\-−]?)\s?(?:[A-Z]{0,3}[$€£¥])?\s?(?P<minus>[\-−]?)
        (?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)
        (?P<power>[eE][+\-]?[0-9]{1,3})?
        (?!\w|[.,:/\-−–]?[0-9])                              # all of it: no letter, no range, ratio or date
        (?:\s*(?P<unit>%|percent\b|(?:thousand|million|billion|trillion)(?=s?\b)))?""",
    re.VERBOSE | re.IGNORECASE,
)

_DIGITS = re.compile(r"-?[$€£¥]?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")


class Number(NamedTuple):
    """A number as it is written: `value` times ten to the `power` of its unit; None where there is no unit.

    "14%" is (14, -2), "$ 3.6 million" is (3.6, 6), "0.14" is (0.14, None).
    """

    value: Decimal
    power: int | None

    @property
    def amount(self) -> Decimal:
        return self.value if self.power is None else self.value.scaleb(self.power)


def parse_number(text: str) -> Number | None:
    """The one number in `text`; None where there is none or more than one, so that nothing is won by listing.

    Read: full-width digits, thousands commas, a currency sign, exponents, percent, thousand to trillion, and a
    bracketed number that is
    the whole text, which is negative as in accounting. Words around the number are allowed, letters stuck to it not.
    """
    stripped = normalize_characters(text).strip()
    bracketed = re.fullmatch(r"[$€£¥]?\s*\((.*?)\)\s*(%?)", stripped)
    found = list(_NUMBER.finditer("".join(bracketed.groups()) if bracketed else stripped))
    if len(found) != 1:
        return None
    match = found[0]
    value = Decimal(match["digits"].replace(",", "") + (match["power"] or ""))
    negative = bool(bracketed) or (match["sign"] or match["minus"]) in ("-", "−")
    return Number(-value if negative else value, _POWERS[match["unit"].lower()] if match["unit"] else None)


def numeric(prediction: str, golds: Sequence[str]) -> float:
    """1 where the prediction is the same number as a gold, or the same yes or no.

    The rule is ours; FinQA's official measure runs a program and does not read free text.

    - Two numbers agree where their amounts agree: "14%" is "0.14", "$3,600,000" is "3.6 million".
    - If only one of the two has a unit, it may be dropped: "14" is "14%", "3.6" is "3.6 million". Never both at once:
      "14" is not "0.14".
    - Whole numbers agree where they are equal. Others agree within 0.5 % of the gold, so an answer rounded to three
      significant digits is right.
    - A gold that is yes or no needs that word alone.
    """
    return score_best(_agree, prediction, golds)


def last_number(prediction: str, golds: Sequence[str]) -> float:
    """1 where the last number in the prediction is a gold: lenient, as the flexible match that GSM8K is scored with.

    Commas and currency signs are dropped, and a stop at the end is no part of a number, as in the task gsm8k of
    EleutherAI's evaluation harness (filter flexible-extract). The difference: amounts are compared, "18.0" is "18".
    """
    return score_best(_ends_alike, prediction, golds)


def find_last_number(text: str) -> Decimal | None:
    """The last number in a text, without commas and currency signs; None where there is none."""
    found = _DIGITS.findall(normalize_characters(text).replace("−", "-"))
    return Decimal(re.sub("[,$€£¥]", "", found[-1])) if found else None


def normalize_last_number(prediction: str) -> Decimal | str:
    """The last number that a prediction names, for a vote; without one, its words."""
    number = find_last_number(prediction)
    return normalize_answer(prediction) if number is None else number


def normalize_number(prediction: str) -> Decimal | str:
    """The amount that a prediction names, for a vote: "14%" is 0.14; without one number, its words."""
    number = parse_number(prediction)
    return normalize_answer(prediction) if number is None else number.amount


def is_numeric(gold: str) -> bool:
    """True where `numeric` can judge this gold: exactly one number, or yes or no."""
    return _is_yes_or_no(gold) or parse_number(gold) is not None


def _is_yes_or_no(text: str) -> bool:
    return normalize_answer(text) in ("yes", "no")


def _agree(prediction: str, gold: str) -> bool:
    if _is_yes_or_no(gold):
        return normalize_answer(prediction) == normalize_answer(gold)
    said, wanted = parse_number(prediction), parse_number(gold)
    if said is None or wanted is None:
        return False
    unit_dropped = (said.power is None) != (wanted.power is None)
    return _close(said.amount, wanted.amount) or (unit_dropped and _close(said.value, wanted.value))


def _ends_alike(prediction: str, gold: str) -> bool:
    said, wanted = find_last_number(prediction), find_last_number(gold)
    return said is not None and said == wanted


def _close(said: Decimal, wanted: Decimal) -> bool:
    if said == said.to_integral_value() and wanted == wanted.to_integral_value():
        return said == wanted
    return abs(said - wanted) <= TOLERANCE * abs(wanted)
