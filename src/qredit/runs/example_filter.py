"""A filter over what a probe measured of each training example: `--keep 'success < 0.9 and log10_p_hat > -12'`.

The expression is read as a tree and worked out here: names of the file's numbers, numbers, comparisons, and, or, not,
+ - * /. Nothing else is read, and nothing is ever run.
"""

import ast
import hashlib
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qredit.tasks.base import Example
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.sanitize import to_one_line

MAX_CHARACTERS = 500  # characters of an expression
MAX_DEPTH = 30  # parts within parts
_LARGEST = 1e300
HASH_KEY = "hash"
_SAME = 0.5  # share of a file's examples that must be found among those to be trained on
_COMPARE: Mapping[type, Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: Mapping[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

ProbeNumbers = Mapping[str, float]


def hash_example(example: Example) -> str:
    """SHA-256 of an example's prompt and answer, in hexadecimal; a text and one user message of it are the same."""
    prompt = example.prompt
    if isinstance(prompt, list) and len(prompt) == 1 and set(prompt[0]) == {"role", "content"}:
        prompt = prompt[0]["content"] if prompt[0]["role"] == "user" else prompt
    text = json.dumps([prompt, example.answer], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ExampleFilter:
    """An expression over the columns of a probe's file.

    Raises:
        QreditError: (when made) it is too long, is none, or holds anything but what is allowed.
    """

    text: str

    def __post_init__(self) -> None:
        self._tree()

    def names(self) -> set[str]:
        """The columns that it reads."""
        return {node.id for node in ast.walk(self._tree()) if isinstance(node, ast.Name)}

    def accepts(self, columns: ProbeNumbers) -> bool:
        """Whether an example with these numbers is kept.

        Raises:
            QreditError: a division by 0.
        """
        try:
            return _truth(self._tree(), columns)
        except ZeroDivisionError:
            raise self._wrong("it divides by 0") from None

    def _tree(self) -> ast.expr:
        if len(self.text) > MAX_CHARACTERS:
            raise QreditError(f"keep has {len(self.text)} characters; {MAX_CHARACTERS} at most")
        try:
            tree = ast.parse(self.text.strip(), mode="eval").body
            if _depth(tree) > MAX_DEPTH:
                raise _NotAllowed(f"it is nested more than {MAX_DEPTH} deep")
            _truth(tree, None)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._wrong("it cannot be read") from None
        except _NotAllowed as error:
            raise self._wrong(str(error)) from None
        return tree

    def _wrong(self, why: str) -> QreditError:
        return QreditError(
            f"keep '{to_one_line(self.text)}': {why}; it may hold names of numbers in the probe's file, numbers, "
            "< <= > >= == !=, and, or, not, + - * / and brackets, as in 'success < 0.9 and log10_p_hat > -12'"
        )


class _NotAllowed(Exception):
    """A part of an expression that is not on the list."""


def _depth(node: ast.AST) -> int:
    return 1 + max(map(_depth, ast.iter_child_nodes(node)), default=0)


def _truth(node: ast.expr, columns: ProbeNumbers | None) -> bool:
    """The value of a comparison or of several; without columns every part is looked at and nothing worked out."""
    if isinstance(node, ast.BoolOp):
        parts = [_truth(value, columns) for value in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _truth(node.operand, columns)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        values = [_number(value, columns) for value in (node.left, *node.comparators)]
        pairs = zip(node.ops, values, values[1:], strict=False)
        return all(_COMPARE[type(op)](left, right) for op, left, right in pairs)
    raise _NotAllowed(f"'{to_one_line(ast.unparse(node))}' is no comparison")


def _number(node: ast.expr, columns: ProbeNumbers | None) -> float:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)
    if isinstance(node, ast.Name):
        return 1.0 if columns is None else columns[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _number(node.operand, columns)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _number(node.left, columns), _number(node.right, columns)
        return 1.0 if columns is None else _ARITHMETIC[type(node.op)](left, right)
    raise _NotAllowed(f"'{to_one_line(ast.unparse(node))}' is no number")


@dataclass(frozen=True)
class FilteredExamples:
    """The examples that a filter keeps, and how many it did not.

    Attributes:
        examples: in their order.
        left_out: probed, and not accepted.
        unprobed: not in the probe's file, and so left out, too.
    """

    examples: Sequence[Example]
    left_out: int
    unprobed: int


def filter_examples(examples: Sequence[Example], keep: ExampleFilter, path: Path, batch: int) -> FilteredExamples:
    """The examples whose numbers in a probe's file the filter accepts.

    Args:
        examples: questions with their reference answers.
        keep: the filter.
        path: what `qredit probe --per-prompt` wrote.
        batch: prompts of a step, fewer than which are refused.

    Raises:
        QreditError: a file that is none, or of other data; a name that is no column; fewer than a batch are kept.
    """
    rows = read_probe_file(path)
    columns = sorted(set.intersection(*(set(row.numbers) for row in rows.values())))
    for name in sorted(keep.names()):
        if name not in columns:
            raise unknown_name_error("column", name, columns)
    hashes = [hash_example(example) for example in examples]
    check_same_data(rows, examples, hashes, path)
    found = [row.numbers for hash in hashes if (row := rows.get(hash)) is not None]
    chosen = [
        example
        for example, hash in zip(examples, hashes, strict=True)
        if hash in rows and keep.accepts(rows[hash].numbers)
    ]
    if len(chosen) < batch:
        raise QreditError(
            f"keep '{to_one_line(keep.text)}' keeps {len(chosen)} of {len(found)} probed examples, fewer than the "
            f"{batch} prompts of a step; widen it, lower prompts_per_step, or probe more ({len(examples)} are there)"
        )
    return FilteredExamples(chosen, len(found) - len(chosen), len(examples) - len(found))


@dataclass(frozen=True)
class ProbedExample:
    """A line of a probe's file: the example's id, and its numbers by name."""

    id: str
    numbers: ProbeNumbers


def read_probe_file(path: Path) -> dict[str, ProbedExample]:
    """The lines of a probe's file, by the hash of their example; a likelihood of 0, null there, is -inf.

    Raises:
        QreditError: it is missing or is no such file, with the line.
    """
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QreditError(f"cannot read probe file {path}: {getattr(error, 'strerror', 'not UTF-8 text')}") from None
    rows: dict[str, ProbedExample] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[str(row[HASH_KEY])] = ProbedExample(str(row["id"]), _numbers(row))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise QreditError(
                f"{path}, line {number}: no line of `qredit probe --per-prompt`; id, {HASH_KEY} and numbers were "
                "expected"
            ) from None
    if not rows:
        raise QreditError(f"probe file {path} is empty")
    return rows


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    numbers = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    return numbers | {"log10_p_hat": numbers.get("log10_p_hat", -math.inf)}


def check_same_data(
    rows: Mapping[str, ProbedExample], examples: Sequence[Example], hashes: Sequence[str], path: Path
) -> None:
    """Refuse a file of other data.

    Args:
        rows: of the file, by the hash of their example.
        examples: that are to be trained on.
        hashes: of each of these.
        path: of the file.

    Raises:
        QreditError: an id with other content, or too few examples that are the same.
    """
    known = set(hashes)
    ids = {example.id for example in examples}
    changed = [row.id for hash, row in rows.items() if hash not in known and row.id in ids]
    found = sum(hash in known for hash in rows)
    if changed or found < _SAME * len(rows):
        more = f"; prompt or answer of '{to_one_line(changed[0])}' is another" if changed else ""
        raise QreditError(
            f"{path} is of other data: {found} of its {len(rows)} examples are among the {len(examples)} to be trained "
            f"on{more}; probe with the same --task, --data and --style"
        )
