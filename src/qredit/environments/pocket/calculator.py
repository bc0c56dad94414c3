"""A calculator for models."""

from fractions import Fraction

from qredit.rewards.exact_arithmetic import calculate


def calculator(expression: str) -> str:
    """Calculate with numbers, + - * / ** and brackets.

    Args:
        expression: what is calculated, such as (12.5 + 30) / 2.
    """
    return _write(calculate(expression))


def _write(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"
