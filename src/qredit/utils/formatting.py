"""Numbers in few characters, as every command and the report write them."""

import math

_LEAST_PERCENT = 1e-4  # a smaller share is written as a probability


def format_probability(log10: float) -> str:
    """A probability from its decimal logarithm, which may be too small for a number: 0.125, 3.4e-9, 1.0e-304, 0."""
    if log10 == -math.inf:
        return "0"
    if -3 < log10 <= 0:
        return f"{10**log10:.3g}"
    exponent = math.floor(log10)
    digits = f"{10 ** (log10 - exponent):.1f}"
    return f"1.0e{exponent + 1}" if digits == "10.0" else f"{digits}e{exponent}"


def format_share(value: float) -> str:
    """A share in per cent: 12.5 %; one too small for that as a probability."""
    if 0 < value < _LEAST_PERCENT:
        return format_probability(math.log10(value))
    return f"{100 * value + 0.0:.3g} %"


def format_multiple(log10: float | None) -> str:
    """How many times as much, from the decimal logarithm: 4.1, 240, 2.6e5; a dash where it is not known."""
    if log10 is None:
        return "–"
    return f"{10**log10:.1f}" if log10 < 1 else f"{10**log10:.0f}" if log10 < 4 else format_probability(log10)
