"""The text form of fields: what `--field` takes and recipes hold.

    planning=planning_grams(shortest=3)
    logp@better=behind_prompt('{prompt} Give a good answer.')
    step_score=my_package.judges:scores            a function of one's own, as QreditTrainer's `fields` takes it
    step_score=my_package.judges.scorer(limit=3)   a call that makes such a function, or a maker

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from qredit.checks import REGISTRY as CHECKS
from qredit.core.field_names import field_kind, resolve_field_name
from qredit.fields import REGISTRY
from qredit.objectives.parsing import read_expression
from qredit.rollouts.field_functions import FieldFunction
from qredit.rollouts.field_maker import FieldMaker
from qredit.utils.errors import QreditError
from qredit.utils.imports import import_object

_NAMES: Mapping[str, Callable[..., Any]] = {**REGISTRY, **CHECKS}


def parse_field(text: str) -> tuple[str, FieldMaker | FieldFunction]:
    """The name of a field and what makes it.

    Args:
        text: `NAME=maker(…)`, `NAME=package.module:function`, or a call of one's own by its import path.

    Raises:
        QreditError: no name, an unknown maker (with the nearest), a wrong argument, a maker of another field, a path
            that cannot be imported.
    """
    given, equals, source = (part.strip() for part in text.partition("="))
    if not (equals and given and source):
        raise QreditError(f"field {text!r}: write NAME=maker(…) or NAME=package.module:function")
    name = resolve_field_name(given)
    maker = _make(name, source)
    if isinstance(maker, FieldMaker):
        maker.check_name(name)
    elif inspect.isclass(maker) or not callable(maker):
        what = f"{maker.__name__} is a class; write a call of it" if inspect.isclass(maker) else f"got {maker!r}"
        raise QreditError(f"field {name}: a maker or a function (trajectories, tokenizer) → values is needed; {what}")
    return name, maker


def parse_fields(texts: Iterable[str]) -> dict[str, FieldMaker | FieldFunction]:
    """What makes each field that these texts name.

    Args:
        texts: each as `parse_field` takes it.

    Raises:
        QreditError: as `parse_field`; a field that is named twice, or made by two.
    """
    found: dict[str, FieldMaker | FieldFunction] = {}
    for name, maker in map(parse_field, texts):
        if name in found:
            raise QreditError(f"field {name} is given twice")
        found[name] = maker
    return found


def list_makers(name: str) -> list[str]:
    """The names of the registered makers that fill a field."""
    return [maker for maker, kind in REGISTRY.items() if field_kind(name) in kind.fills]


def suggest_makers(name: str) -> str:
    """What `--field` takes to have a field filled, in words; for errors and pages.

    Args:
        name: of a field.
    """
    makers = list_makers(name)
    own = f"--field {name}=package.module:function"
    if not makers:
        return own
    first = REGISTRY[makers[0]].fills[0]
    given = name if field_kind(name) == first or first.endswith("@") else first
    return " or ".join([*(f"--field {given}={maker}(…)" for maker in makers), own])


def _is_path(source: str) -> bool:
    module, colon, name = source.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


@cache  # options are looked at several times, and a call of the user's own may load what it needs
def _make(name: str, source: str) -> Any:
    if _is_path(source):
        return import_object(source)
    return read_expression(source, _NAMES, f"field {name}:", "maker of fields")
