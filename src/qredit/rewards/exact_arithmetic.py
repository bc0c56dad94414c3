"""Exact arithmetic read from Python's syntax tree by a whitelist. Nothing is evaluated that is not in it."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

MOST_CHARACTERS = 200
MOST_DIGITS = 30
_LARGEST = 10**MOST_DIGITS
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_REFUSED = "this is no arithmetic; write numbers, + - * / ** and brackets"
_BINARY: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Fraction], Fraction]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculate(expression: str) -> Fraction:
    """The exact value of an expression.

    Raises:
        ValueError: it is no arithmetic, too long, divides by zero, or takes numbers of more than `MOST_DIGITS` digits.
            The model reads why, as it reads what any tool raises.
    """
    if len(expression) > MOST_CHARACTERS:
        raise ValueError(f"an expression has {MOST_CHARACTERS} characters at most, this one {len(expression)}")
    try:
        tree = ast.parse(_THOUSANDS.sub("", expression).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what the parser raises
        raise ValueError(_REFUSED) from None
    try:
        return _value(tree.body)
    except ZeroDivisionError:
        raise ValueError("division by zero") from None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bound(Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _bound(_BINARY[type(node.op)](_value(node.left), _value(node.right)))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _power(_value(node.left), _value(node.right))
    raise ValueError(_REFUSED)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """A power by repeated products, so that it is refused as soon as it is too large, and never computed before."""
    if exponent.denominator != 1 or abs(exponent) > MOST_CHARACTERS:
        raise ValueError(f"an exponent must be a whole number, at most {MOST_CHARACTERS}")
    found = Fraction(1)
    for _ in range(abs(int(exponent))):
        found = _bound(found * base)
    return found if exponent >= 0 else _bound(1 / found)


def _bound(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) >= _LARGEST:
        raise ValueError(f"this takes numbers of more than {MOST_DIGITS} digits")
    return value
