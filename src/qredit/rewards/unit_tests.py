"""Programs judged by the tests of their row: run in a sandbox, and compared outside of it.

What is expected never enters the sandbox. A program is told what to read or what to compute, and what it said is
compared here. So it cannot look for the answers, and ending with status 0, printing a word or replacing `==` wins
nothing.
"""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.rewards.sandbox import SANDBOX
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import to_one_line

_FENCE = re.compile(r"```[a-zA-Z0-9_+-]*[ \t]*\n(.*?)```", re.DOTALL)
MOST_TESTS = 64
_FORM = 'write "assert EXPRESSION == CONSTANT", or {"input": …, "output": …}, each with a weight if wanted'


@dataclass(frozen=True)
class UnitTest:
    """One test of a program.

    Attributes:
        asked: {"stdin": …} or {"value": …}, as the sandbox takes it.
        expected: the text that it is to write, or the value.
        weight: how much it counts.
    """

    asked: Mapping[str, str]
    expected: Any
    weight: float = 1.0

    def passes(self, said: str | None) -> bool:
        """Whether that is what was expected; None is a program that failed.

        Texts are the same where their lines are, white space at the ends of lines and behind the last one apart. Values
        are the same where Python's == says so of built-in types.
        """
        if said is None:
            return False
        if "stdin" in self.asked:
            return _lines(said) == _lines(self.expected)
        try:
            return bool(decode(json.loads(said)) == self.expected)
        except (ValueError, TypeError, KeyError, IndexError, RecursionError, SyntaxError, MemoryError):
            return False  # the program may write anything


def parse_tests(value: Any) -> tuple[UnitTest, ...]:
    """The tests of a row: a list of texts or objects, or its JSON.

        "assert f(2) == 4"   also "assert f(2)" and "assert not f(2)", which expect a true and a false value
        {"input": "2\\n", "output": "4"}
        {"assert": "f(2) == 4", "weight": 0.35}

    Raises:
        QreditError: no test, more than `MOST_TESTS`, or one that is written in another way.
    """
    listed = value
    if isinstance(value, str) and not value.lstrip().startswith("assert"):
        try:
            listed = json.loads(value)
        except (ValueError, RecursionError):
            raise QreditError(f"tests {_short(value)} are no JSON; {_FORM}") from None
    if isinstance(listed, str | Mapping):
        listed = [listed]
    if not isinstance(listed, Sequence) or not listed:
        raise QreditError(f"tests must be a list, got {_short(value)}; {_FORM}")
    if len(listed) > MOST_TESTS:
        raise QreditError(f"{len(listed)} tests, and {MOST_TESTS} at most")
    return tuple(map(_parse_test, listed))


def extract_code(response: str) -> str:
    """The program of an answer: its last fenced block, or all of it where there is none."""
    blocks = _FENCE.findall(response)
    return blocks[-1] if blocks else response


def score_unit_tests(response: str, tests: Sequence[UnitTest]) -> float:
    """The weighted share of tests that the program of an answer passes: Σ w of those that pass / Σ w.

    Args:
        response: the answer.
        tests: of its row.

    Raises:
        QreditError: the sandbox cannot be had. Nothing was run then.
    """
    code = extract_code(response)
    if not code.strip():
        return 0.0
    said = SANDBOX.run(code, [test.asked for test in tests])
    passed = [test.weight for test, one in zip(tests, said, strict=True) if test.passes(one)]
    return math.fsum(passed) / math.fsum(test.weight for test in tests)


def decode(told: Any) -> Any:
    """The value that the sandbox told as [type, content]."""
    kind, content = told
    if kind in ("int", "float", "str", "bytes", "bool", "NoneType"):
        return float(content) if kind == "float" else ast.literal_eval(content)
    if kind == "dict":
        return {decode(one): decode(other) for one, other in content}
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](map(decode, content))


def _parse_test(given: Any) -> UnitTest:
    test = {"assert": given} if isinstance(given, str) else given
    if not isinstance(test, Mapping):
        raise QreditError(f"test {_short(given)} cannot be read; {_FORM}")
    held = {name: value for name, value in test.items() if value is not None}  # as tables fill what a row lacks
    weight = held.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise QreditError(f"test {_short(given)}: weight must be a number above 0, got {weight!r}")
    if any(isinstance(text, str) and len(text) >= SANDBOX.limits.characters for text in held.values()):
        raise QreditError(
            f"test {_short(given)}: a text of a test has fewer than {SANDBOX.limits.characters} characters"
        )
    if set(held) == {"input", "output"} and all(isinstance(text, str) for text in held.values()):
        return UnitTest({"stdin": held["input"]}, held["output"], float(weight))
    if set(held) == {"assert"} and isinstance(held["assert"], str):
        return UnitTest(*_parse_assert(held["assert"]), float(weight))
    raise QreditError(f"test {_short(given)} cannot be read; {_FORM}")


def _parse_assert(text: str) -> tuple[Mapping[str, str], Any]:
    """What is to be computed, and what is expected of it."""
    source = text.strip()
    try:
        (statement,) = ast.parse(source if source.startswith("assert") else f"assert {source}").body
        assert isinstance(statement, ast.Assert)
        match statement.test:
            case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
                return {"value": ast.unparse(left)}, ast.literal_eval(right)
            case ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call):
                return {"value": f"bool({ast.unparse(call)})"}, False
            case ast.Call() as call:
                return {"value": f"bool({ast.unparse(call)})"}, True
    except (SyntaxError, ValueError, TypeError, AssertionError, RecursionError, MemoryError):
        pass
    raise QreditError(f"test {_short(text)} cannot be read; {_FORM}")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _short(value: Any) -> str:
    said = to_one_line(repr(value))
    return said if len(said) <= 80 else f"{said[:77]}…"
