"""The text form of an objective: what recipes hold, what the command line takes, what a run records.

    garl(q=0.75)
    garl(q=linear(1, 0)) | my_package.stages.my_credit(strength=2)
    Objective(on_span("sampled", reward() | center_by_group()), clipped_ratio(high=0.28), mean_per_token())
    per_span(rationale=0.5 * reward(), answer=amplified_likelihood(q=1.0))

Read by walking Python's syntax tree over a fixed list of names. Nothing is evaluated: no attribute is read, no
operator is applied but `|`, `+` and `*` between stages, no name is known but those below. A dotted name is a user's own
stage or objective, imported by that path.
"""

import ast
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from qredit import credit, penalties
from qredit.core import surrogate
from qredit.core.chain import Credit, Source, Stage, add, chain, on_span, per_span, tempered
from qredit.core.hint import hint
from qredit.core.importance import mixture_weight, sequence_mask, sequence_truncate, token_mask, token_truncate
from qredit.core.objective import Objective
from qredit.core.penalty import Penalty
from qredit.core.reduce import mean_per_rollout, mean_per_token, sum_per_length, sum_per_rollout
from qredit.core.schedule import auto, cosine, exponential, linear, steps
from qredit.credit import goal, halves
from qredit.objectives import REGISTRY
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.former_names import former_names
from qredit.utils.imports import import_object


def _import_modules(package: ModuleType) -> list[ModuleType]:
    return [importlib.import_module(f"{package.__name__}.{found.name}") for found in iter_modules(package.__path__)]


def _find_classes(modules: Iterable[ModuleType], base: type) -> dict[str, Callable[..., Any]]:
    """The public classes of a kind that these modules define."""
    return {
        name: kind
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, base) and not inspect.isabstract(kind)
        if kind.__module__ == module.__name__ and not name.startswith("_")
    }


STAGES: Mapping[str, Callable[..., Any]] = _find_classes(_import_modules(credit), Stage)
PENALTIES: Mapping[str, Callable[..., Any]] = _find_classes(_import_modules(penalties), Penalty)
SURROGATES: Mapping[str, Callable[..., Any]] = _find_classes((surrogate,), surrogate.Surrogate)
_PARTS: Mapping[str, Callable[..., Any]] = {
    part.__name__: part
    for part in (
        *(add, chain, on_span, per_span, tempered, Objective),
        *(sum_per_rollout, mean_per_rollout, mean_per_token, sum_per_length),
        *(linear, cosine, exponential, steps, auto, halves.cosine_restarts),
        *(sequence_truncate, token_truncate, sequence_mask, token_mask, mixture_weight, hint),
        *(goal.success, goal.log_success, goal.arcsine, goal.pass_at, goal.success_std, goal.imported_slope),
    )
}
NAMES: Mapping[str, Callable[..., Any]] = {**REGISTRY, **STAGES, **PENALTIES, **SURROGATES, **_PARTS}


def parse(text: str) -> Objective:
    """The objective that `text` describes. A bare source becomes an objective with the default surrogate and reduction.

    Raises:
        QreditError: a syntax error, an unknown name (with the nearest known one), a wrong argument, or anything else
            than a call, a constant, a tuple or one of `|`, `+`, `*`.
    """
    value = read_expression(text, NAMES, "objective", "objective or stage")
    if isinstance(value, Source):
        value = Objective(value)
    if not isinstance(value, Objective):
        raise QreditError(f"objective {text!r} is not an objective or a source, but {value!r}")
    return replace(value, text=text.strip())


def read_expression(text: str, names: Mapping[str, Callable[..., Any]], what: str, callee: str) -> Any:
    """What an expression stands for: calls of these names or of a user's own by import path, as described above.

    Args:
        text: the expression.
        names: what may be called.
        what: what the text is, for errors, such as objective.
        callee: what the names are, for errors.

    Raises:
        QreditError: as `parse`.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise QreditError(f"{what} {text!r} cannot be read: {error.msg} at column {error.offset}") from None
    return _Reader(f"{what} {text!r}", names, callee).read(tree.body)


def read_rule(text: str, names: Mapping[str, Callable[..., Any]], what: str, callee: str, parts: Sequence[str]) -> Any:
    """The rule that an expression makes, a registered one or a user's own with the parts of one.

    Args:
        text: the expression.
        names: the registered rules.
        what: what the text is, for errors, such as branching.
        callee: what the names are, for errors.
        parts: attributes that a rule has.

    Raises:
        QreditError: as `read_expression`; a call of something else than a rule.
    """
    rule = read_expression(text, names, what, callee)
    if missing := [part for part in parts if not hasattr(rule, part)]:
        raise QreditError(f"{what} {text!r} makes no rule: {type(rule).__name__} has no {', '.join(missing)}")
    return rule


def read_kind(text: str, names: Mapping[str, Callable[..., Any]], what: str, callee: str, kind: type) -> Any:
    """The rule that an expression makes, where rules are of one class, a user's own too.

    Args:
        text: the expression.
        names: the registered rules, and what may stand inside them.
        what: what the text is, for errors, such as select.
        callee: what the names are, for errors.
        kind: the class.

    Raises:
        QreditError: as `read_expression`; a call of something else than a rule, with the names of those.
    """
    rule = read_expression(text, names, what, callee)
    if not isinstance(rule, kind):
        rules = sorted(name for name, made in names.items() if isinstance(made, type) and issubclass(made, kind))
        raise QreditError(f"{what} {text!r} is no rule; rules: {', '.join(rules)}")
    return rule


def example(name: str) -> Objective:
    """A registered objective at its defaults, and at example values where it has none."""
    return parse(f"{name}({REGISTRY[name].example})")


class _Reader:
    def __init__(self, subject: str, names: Mapping[str, Callable[..., Any]], callee: str) -> None:
        self.subject, self.names, self.callee = subject, names, callee

    def read(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.Tuple(elts=items) | ast.List(elts=items):
                return tuple(self.read(item) for item in items)
            case ast.BinOp(left=left, op=ast.BitOr() | ast.Add() | ast.Mult() as op, right=right):
                return self._combine(self.read(left), op, self.read(right))
            case ast.Call(func=function, args=arguments, keywords=keywords):
                return self._call(function, arguments, keywords)
            case ast.Name(id=name):
                hint = f"; write {name}()" if name in self.names else ""
                raise QreditError(f"{self.subject}: '{name}' is not a call{hint}")
        raise QreditError(
            f"{self.subject}: {ast.unparse(node)!r} is not allowed; only calls, constants, tuples, |, + and *"
        )

    def _combine(self, left: Any, op: ast.operator, right: Any) -> Any:
        try:
            if isinstance(op, ast.BitOr):
                return left | right
            if isinstance(op, ast.Add):
                return left + right
            return left * right if isinstance(left, Source) else right.__rmul__(left)
        except (TypeError, AttributeError):
            sign = {ast.BitOr: "|", ast.Add: "+", ast.Mult: "*"}[type(op)]
            raise QreditError(f"{self.subject}: '{sign}' cannot join {left} and {right}") from None

    def _call(self, function: ast.expr, arguments: list[ast.expr], keywords: list[ast.keyword]) -> Any:
        make = self._callee(function)
        if any(isinstance(argument, ast.Starred) for argument in arguments) or any(k.arg is None for k in keywords):
            raise QreditError(f"{self.subject}: * and ** are not allowed in {ast.unparse(function)}(…)")
        positional = [self.read(argument) for argument in arguments]
        named = {str(keyword.arg): self.read(keyword.value) for keyword in keywords}
        if isinstance(function, ast.Name):
            self._check_names(function.id, inspect.signature(make), positional, named)
        try:
            return make(*positional, **named)
        except TypeError as error:
            raise QreditError(f"{self.subject}: {str(error).replace('.__init__()', '()')}") from None

    def _check_names(
        self, name: str, takes: inspect.Signature, positional: Sequence[Any], named: Mapping[str, Any]
    ) -> None:
        """Told before what is missing: a name that is not known may be a misspelling of it."""
        try:
            takes.bind_partial(*positional, **named)
        except TypeError as error:
            raise QreditError(f"{self.subject}: {name} {error}; it takes {', '.join(takes.parameters)}") from None

    def _callee(self, function: ast.expr) -> Callable[..., Any]:
        if isinstance(function, ast.Name):
            if function.id not in self.names:
                raise unknown_name_error(self.callee, function.id, self.names)
            return self.names[function.id]
        path = ast.unparse(function)
        if not all(part.isidentifier() for part in path.split(".")):
            raise QreditError(f"{self.subject}: {path!r} is not a name or an import path")
        return import_object(path)


__all__ = [
    "Credit",
    "NAMES",
    "PENALTIES",
    "STAGES",
    "SURROGATES",
    "example",
    "import_object",
    "parse",
    "read_expression",
    "read_rule",
]

__getattr__ = former_names(__name__, {"imported": "import_object"})
