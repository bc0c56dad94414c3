"""Numbers as the text of an answer: as their file writes them, and whole ones without a decimal point."""

import math
import re
from decimal import Decimal
from typing import Any

_WHOLE = re.compile(r"(-?\d+)\.0+")
_EXACT = 2**63  # a column of 64-bit integers turns to floats where one cell is missing


class VerbatimFloat(float):
    """A float that keeps the digits it was written with: 1e+16, 0.30, or a float32's own 0.1."""

    text: str

    def __new__(cls, text: str) -> "VerbatimFloat":
        made = super().__new__(cls, text)
        made.text = text
        return made


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)


def format_number(value: int | float | Decimal) -> str:
    """The text of a finite number.

    13.0 is "13": such numbers come from columns of integers that a missing cell turned to floats. Where a file holds
    text, its digits stay as they are there (1e+16, 0.50); a binary float takes the fewest digits that give it back.

    >>> format_number(13.0), format_number(0.1 + 0.2), format_number(VerbatimFloat("1e+16"))
    ('13', '0.30000000000000004', '1e+16')
    """
    if isinstance(value, Decimal):
        text = format(value, "f")
    elif isinstance(value, VerbatimFloat):
        text = value.text
    elif isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    else:
        text = str(value)
    whole = _WHOLE.fullmatch(text)
    return text if whole is None else str(int(whole[1]))
