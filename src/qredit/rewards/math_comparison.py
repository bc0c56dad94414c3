"""Whether two readings are the same answer."""

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

from qredit.rewards.math_parsing import (
    Expression,
    Interval,
    MultipleValues,
    NamedValue,
    PlainWords,
    Reading,
    SetDifference,
    as_interval,
    iter_parts,
)
from qredit.rewards.quantity import Quantity, are_equal, is_finite_decimal

Algebra = Callable[[str, str], bool]
_UNORDERED = frozenset({"list", "set", "union"})


def is_same_answer(said: Reading, wanted: Reading, algebra: Algebra) -> bool:
    """True where `said` is the answer `wanted`.

    A name may be missing on one side ("x = 5", "5"), never differ. Lists, sets and unions have no order; tuples,
    ratios, ranges and matrices have one. Formulas are compared by `algebra`.

    Args:
        said: the prediction's reading.
        wanted: the gold's.
        algebra: whether two LaTeX formulas, prediction and gold, are equal.
    """
    if said == wanted:
        return True
    if isinstance(said, NamedValue) or isinstance(wanted, NamedValue):
        return _same_named(said, wanted, algebra)
    if isinstance(said, Interval) or isinstance(wanted, Interval):
        return _same_interval(as_interval(said), as_interval(wanted), algebra)
    match said, wanted:
        case Quantity(), Quantity():
            return are_equal(said, wanted)
        case MultipleValues(), MultipleValues():
            return _same_many(said, wanted, algebra)
        case SetDifference(), SetDifference():
            return is_same_answer(said.whole, wanted.whole, algebra) and is_same_answer(
                said.excepted, wanted.excepted, algebra
            )
        case _:
            formulas = _formula(said), _formula(wanted)
            return all(formulas) and algebra(*formulas)  # type: ignore[arg-type]


def _formula(reading: Reading) -> str | None:
    """A reading as LaTeX for the algebra; None for words, and for a quantity whose unit it could not respect."""
    match reading:
        case Expression():
            return reading.latex
        case Quantity(unit=""):
            return _number(reading)
        case Quantity(unit="degree"):
            return rf"{_number(reading)}^\circ"
        case PlainWords(text) if len(text) == 1:
            return text
        case MultipleValues("rows", rows):
            cells = [[_formula(cell) for cell in iter_parts(row)] for row in rows]
            if not all(cell for row in cells for cell in row):
                return None
            lines = r"\\".join("&".join(map(str, row)) for row in cells)
            return rf"\begin{{pmatrix}}{lines}\end{{pmatrix}}"
        case _:
            return None


def _number(quantity: Quantity) -> str:
    """The number, with its decimal point where it was written with one: such a number may be rounded."""
    value = quantity.value
    if not quantity.decimal or not is_finite_decimal(value):
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    with localcontext(prec=1000):
        return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"


def _same_named(said: Reading, wanted: Reading, algebra: Algebra) -> bool:
    match said, wanted:
        case NamedValue(), NamedValue():
            if said.name == wanted.name and is_same_answer(said.value, wanted.value, algebra):
                return True
        case NamedValue(), Expression() if "=" in wanted.latex:
            pass
        case Expression(), NamedValue() if "=" in said.latex:
            pass
        case NamedValue(), _:
            return is_same_answer(said.value, wanted, algebra)
        case _, NamedValue():
            return is_same_answer(said, wanted.value, algebra)
    equations = _equation(said), _equation(wanted)
    return all(equations) and algebra(*equations)  # type: ignore[arg-type]


def _equation(reading: Reading) -> str | None:
    if isinstance(reading, NamedValue):
        value = _formula(reading.value)
        return f"{reading.name}={value}" if value and len(reading.name) == 1 else None
    return reading.latex if isinstance(reading, Expression) else None


def _same_interval(said: Reading, wanted: Reading, algebra: Algebra) -> bool:
    if not isinstance(said, Interval) or not isinstance(wanted, Interval):
        return False
    if (said.low_closed, said.high_closed) != (wanted.low_closed, wanted.high_closed):
        return False
    return is_same_answer(said.low, wanted.low, algebra) and is_same_answer(said.high, wanted.high, algebra)


def _same_many(said: MultipleValues, wanted: MultipleValues, algebra: Algebra) -> bool:
    said, wanted = _coordinates(said, wanted), _coordinates(wanted, said)
    if not _same_kind(said, wanted) or (said.unit and wanted.unit and said.unit != wanted.unit):
        return False
    if said.kind not in _UNORDERED:
        return _in_order(said.members, wanted.members, algebra)
    if "set" in (said.kind, wanted.kind):
        return _covers(said.members, wanted.members, algebra) and _covers(wanted.members, said.members, algebra)
    return _in_some_order(said.members, wanted.members, algebra)


def _coordinates(named: MultipleValues, other: MultipleValues) -> MultipleValues:
    """ "x = 2, y = 7" as the tuple (2, 7), where the other side is a tuple."""
    members = [member for member in named.members if isinstance(member, NamedValue)]
    if named.kind != "list" or other.kind != "tuple" or len({m.name for m in members}) != len(named.members):
        return named
    return MultipleValues("tuple", tuple(member.value for member in sorted(members, key=lambda member: member.name)))


def _same_kind(said: MultipleValues, wanted: MultipleValues) -> bool:
    kinds = {said.kind, wanted.kind}
    return len(kinds) == 1 or kinds in ({"list", "set"}, {"to", "range"}, {"to", "ratio"})


def _in_order(said: Sequence[Reading], wanted: Sequence[Reading], algebra: Algebra) -> bool:
    return len(said) == len(wanted) and all(
        is_same_answer(one, other, algebra) for one, other in zip(said, wanted, strict=True)
    )


def _covers(some: Sequence[Reading], others: Sequence[Reading], algebra: Algebra) -> bool:
    return all(any(is_same_answer(one, other, algebra) for other in others) for one in some)


def _in_some_order(said: Sequence[Reading], wanted: Sequence[Reading], algebra: Algebra) -> bool:
    left = list(wanted)
    for one in said:
        match = next((index for index, other in enumerate(left) if is_same_answer(one, other, algebra)), None)
        if match is None:
            return False
        del left[match]
    return not left
