"""The process that runs math-verify for `qredit.rewards.math_equal`. Run by path; imports nothing of qredit.

Reads one JSON list per line, [operation, argument, …], and answers each with one JSON boolean.
"""

import contextlib
import faulthandler
import json
import logging
import os
import queue
import re
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from math_verify import parse, verify
from sympy import Basic, Eq, Expr, Float, I, MatrixBase, Rational, nan, simplify, zoo

# If the trainer dies while a request runs, nobody is left to kill this process. The thread that reads ends it, unless
# one long operation of Python's integers keeps every thread of it from running.
_ORPHANED_SECONDS = 60.0
_MOST_BYTES = 4 * 2**30  # of address space: a huge power ends in MemoryError, not in the machine's swap
_DIGITS = 30  # computed to compare two constants
_ROUNDING = Rational(1, 10**6)  # between a decimal, which may be rounded, and an exact number
_DELIMITED = re.compile(r"\$|\\boxed|\\\(|\\\[")
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.]|\s*\\overline)")

_DEGREES, _RADIANS = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?"), r" \\cdot \\frac{\\pi}{180} "


def equal(prediction: str, gold: str) -> bool:
    """True where the two stand for the same mathematical object.

    Constants are equal where their difference is 0; where one has decimals and the other none, also within 1e-6,
    relatively. Equations are equal where one is a multiple of the other. All else is left to math-verify.
    """
    said, wanted = extract_expressions(prediction), extract_expressions(gold)
    if not said or not wanted:
        return False
    return _same(said[0], wanted[0], rounded=_has_decimals(prediction) != _has_decimals(gold))


def _same(one: Any, other: Any, *, rounded: bool) -> bool:
    if isinstance(one, MatrixBase) or isinstance(other, MatrixBase):
        return _same_matrix(one, other, rounded=rounded)
    one, other = _imaginary(one), _imaginary(other)
    if _is_constant(one) and _is_constant(other):
        return _same_constant(one, other, rounded=rounded)
    if isinstance(one, Eq) and isinstance(other, Eq):
        return _same_equation(one, other)
    if isinstance(one, Eq) or isinstance(other, Eq) or _is_constant(one) or _is_constant(other):
        return isinstance(one, Expr) and isinstance(other, Expr) and simplify(one - other) == 0
    return bool(verify([other], [one], timeout_seconds=None))


def parses(gold: str) -> bool:
    """True where math-verify reads an expression in `gold`."""
    return bool(extract_expressions(gold))


@lru_cache(maxsize=1024)
def extract_expressions(text: str) -> Sequence[Any]:
    """The expressions math-verify reads in `text`, without its fall-back to plain strings.

    It looks for LaTeX between delimiters only, and would read the bare "2^{10}" as 2. So a text without delimiters is
    read as one boxed expression. Decimals are read as the fractions that they are: as floats, 1e-7 and 2e-7 would be
    equal. What has no value, as 0/0, is no expression.
    """
    if not _DELIMITED.search(text):
        text = f"\\boxed{{{_DEGREES.sub(_RADIANS, _DECIMAL.sub(_as_fraction, text.strip()))}}}"
    # math-verify's own time limits are alarm signals, for a main thread only. Here the caller ends the process instead.
    found = list(parse(text, parsing_timeout=None, fallback_mode="no_fallback"))
    return [] if any(isinstance(value, Basic) and value.has(nan, zoo) for value in found) else found


def _as_fraction(found: re.Match[str]) -> str:
    whole, part = found[1], found[2]
    return rf"(\frac{{{int(whole + part)}}}{{{10 ** len(part)}}})"


def _has_decimals(text: str) -> bool:
    return bool(_DECIMAL.search(text))


def _imaginary(value: Any) -> Any:
    """A formula whose only letter is i, which is then the imaginary unit."""
    letters = value.free_symbols if isinstance(value, Expr) else set()
    return value.subs(dict.fromkeys(letters, I)) if {letter.name for letter in letters} == {"i"} else value


def _is_constant(value: Any) -> bool:
    return isinstance(value, Expr) and not value.free_symbols and value.is_number is not False


def _same_constant(one: Expr, other: Expr, *, rounded: bool) -> bool:
    if one == other:
        return True
    if one.is_finite is False or other.is_finite is False:
        return False
    difference = one - other
    if difference.is_Rational and not rounded:
        return bool(difference == 0)
    size = abs(difference).evalf(_DIGITS, maxn=1000)
    scale = abs(other).evalf(_DIGITS, maxn=1000)
    if not (size.is_Float or size.is_Rational) or not (scale.is_Float or scale.is_Rational):
        return False
    if rounded and not (one.is_Rational and other.is_Rational and _both_finite(one, other)):
        return bool(size <= _ROUNDING * scale)
    return bool(difference.equals(0)) if size <= Float(10) ** (5 - _DIGITS) * scale else False


def _same_matrix(one: Any, other: Any, *, rounded: bool) -> bool:
    one, other = (value.doit() if isinstance(value, Basic) else value for value in (one, other))
    if not isinstance(one, MatrixBase) or not isinstance(other, MatrixBase) or one.shape != other.shape:
        return False
    return all(_same(*cells, rounded=rounded) for cells in zip(one, other, strict=True))


def _both_finite(one: Any, other: Any) -> bool:
    return all(10 ** value.q.bit_length() % value.q == 0 for value in (one, other))


def _same_equation(one: Any, other: Any) -> bool:
    """One is the other times a constant: x + y = 2 and 2y = 4 - 2x."""
    left, right = one.lhs - one.rhs, other.lhs - other.rhs
    if left.free_symbols != right.free_symbols:
        return False
    ratio = simplify(left / right)
    return bool(isinstance(ratio, Basic) and not ratio.free_symbols and ratio.is_finite and ratio != 0)


OPERATIONS: Mapping[str, Callable[..., bool]] = {"equal": equal, "parses": parses}


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.WARNING)
    with contextlib.suppress(OSError, ValueError):  # where the system sets a lower limit of its own
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    answers, sys.stdout = sys.stdout, sys.stderr
    equal("1", "$1$")  # loads the parsers before the first request is timed
    with open(os.devnull, "w") as nowhere:
        print("ready", file=answers, flush=True)
        for line in iter(_lines().get, None):
            faulthandler.dump_traceback_later(_ORPHANED_SECONDS, exit=True, file=nowhere)
            operation, *arguments = json.loads(line)
            try:
                answer = OPERATIONS[operation](*arguments)
            except Exception:  # whatever math-verify cannot digest is not equal
                answer = False
            print(json.dumps(answer), file=answers, flush=True)
            faulthandler.cancel_dump_traceback_later()


def _lines() -> "queue.SimpleQueue[str]":
    """The lines of the input as they come, read by a thread that ends this process when the input ends."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


if __name__ == "__main__":
    main()
