"""From dataclasses of options to flags, from flags and YAML to dataclasses; one-line errors with the nearest name."""

import argparse
import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from qredit.utils.errors import QreditError, find_nearest

T = TypeVar("T")
FieldTypes = tuple[Any, ...]
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Parser(argparse.ArgumentParser):
    """argparse, with its errors raised as one line.

    Attributes:
        extra_types: names that may be given as flags beside the parser's own, each with the types it may have; called
            where a flag is none of the parser's own, for the names may be those of a library that takes long to import.
    """

    extra_types: Callable[[], Mapping[str, FieldTypes]]

    def __init__(self, **kwargs: Any) -> None:
        self.extra_types = dict
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise QreditError(message)

    def print_help(self, file: Any = None) -> None:
        """As argparse does, but a help that cannot be written is an error."""
        print(self.format_help(), end="", file=file)


def make_flag(name: str) -> str:
    """The flag of a field: --prompts-per-step."""
    return "--" + name.replace("_", "-")


def add_options(parser: argparse.ArgumentParser, options: type, title: str) -> None:
    """One flag for every field; a flag that is not given is absent from the result.

    Args:
        parser: gets the flags.
        options: a dataclass of options.
        title: heading of the flags in the help.
    """
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(options):
        if field.name == "training":
            continue
        default = "" if field.default in (None, False, ()) else f" (default: {field.default})"
        settings: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "metavar": _metavar(options, field),
        }
        settings["help"] = (field.metadata["help"] + default).replace("%", "%%")
        if bool in get_field_types(options, field.name):
            settings |= {"nargs": "?", "const": "true"}
        if field.metadata.get("repeats"):
            settings |= {"action": "append"}
        group.add_argument(make_flag(field.name), **settings)


def select_fields(options: type, names: Iterable[str], helps: Mapping[str, str] | None = None) -> type:
    """A dataclass with some of the fields of another, in its order.

    Args:
        options: the other one.
        names: of its fields.
        helps: help texts that take the place of the field's own, by its name.
    """
    hints, kept, said = get_type_hints(options), set(names), helps or {}
    picked = [
        (f.name, hints[f.name], dataclasses.field(default=f.default, metadata={**f.metadata, **_help(f.name, said)}))
        for f in dataclasses.fields(options)
        if f.name in kept
    ]
    return dataclasses.make_dataclass("Shared", picked, frozen=True)


def _help(name: str, said: Mapping[str, str]) -> dict[str, str]:
    return {"help": said[name]} if name in said else {}


def read_arguments(parser: Parser, argv: Sequence[str]) -> dict[str, Any]:
    """The flags given, by name.

    Raises:
        QreditError: an unknown flag (with the nearest one), a flag without its value.
    """
    known, rest = parser.parse_known_args(list(argv))
    given, words = dict(vars(known)), list(rest)
    kinds = parser.extra_types() if words else {}
    while words:
        name, equals, value = words.pop(0).partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or key not in kinds:
            raise _unknown_flag(parser, name, kinds)
        if not equals and words and not words[0].startswith("--"):
            value = words.pop(0)
        elif not equals and bool in kinds[key]:
            value = "true"
        if not value:
            raise QreditError(f"flag {name} needs a value")
        given[key] = value
    return given


def read_yaml(path: str) -> dict[str, Any]:
    """The options in a YAML file.

    Raises:
        QreditError: it is missing, cannot be parsed (with the line), or is not a list of keys and values.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise QreditError(f"no config file {file}")
    import yaml  # here, as below: a command without options of training does not wait for what reads them

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise QreditError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise QreditError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise QreditError(f"{file}{line}: not YAML ({getattr(error, 'problem', None) or 'unreadable'})") from None
    if not isinstance(found, dict):
        raise QreditError(f"{file}: keys and values were expected, not {type(found).__name__}")
    return {str(key).replace("-", "_"): value for key, value in found.items()}


def build_options(
    options: type[T],
    sources: Sequence[tuple[str, Mapping[str, Any]]],
    further: Callable[[], Mapping[str, FieldTypes]] = dict,
) -> T:
    """The options from several sources, the later ones winning; each source has a name for its errors.

    Args:
        options: a dataclass of options.
        sources: (name, values) of each source, the weakest first.
        further: names that are no fields of `options` and go into its field `training`, with the types each may have;
            called where a key is no field.

    Raises:
        QreditError: an unknown key (with the nearest one), a value of the wrong type or none of the choices.
    """
    fields = {f.name: f for f in dataclasses.fields(options) if f.name != "training"}  # type: ignore[arg-type]
    unread = {key for _, source in sources for key in source} - set(fields)
    others = further() if unread else {}
    values: dict[str, Any] = {}
    training: dict[str, Any] = {}
    for where, source in sources:
        for key, value in source.items():
            if key in fields:
                if fields[key].metadata.get("repeats"):
                    values[key] = _list_repeated(key, value)
                    continue
                choices, words = (fields[key].metadata.get(name, ()) for name in ("choices", "words"))
                if isinstance(value, list) and "joined_by" in fields[key].metadata:
                    value = fields[key].metadata["joined_by"].join(map(str, value))
                values[key] = convert_value(key, get_field_types(options, key), value, choices, words)
            elif key in others:
                training[key] = _converted_if_simple(key, others[key], value)
            else:
                raise QreditError(f"unknown key '{key}' in {where}{_nearest(key, [*fields, *others])}")
    if training:
        values["training"] = training
    return options(**values)


def _list_repeated(name: str, value: Any) -> tuple[str, ...]:
    """The values of an option that may be given several times: a list of texts, or in YAML also NAME: text.

    Args:
        name: of the option, for errors.
        value: as it was given.

    Raises:
        QreditError: it is neither.
    """
    listed = [f"{key}={text}" for key, text in value.items()] if isinstance(value, Mapping) else value
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list | tuple) or not all(isinstance(text, str) for text in listed):
        raise QreditError(f"{name} must be a list of texts such as NAME=value, got {value!r}")
    return tuple(listed)


def convert_value(
    name: str, kinds: FieldTypes, value: Any, choices: Sequence[str] = (), words: Sequence[str] = ()
) -> Any:
    """A value as one of the types it may have, or one of the words that may stand in its place.

    Args:
        name: of the option, for errors.
        kinds: types that it may have.
        value: as it was given.
        choices: words of a closed list.
        words: words that may stand in place of a value, such as auto.

    Raises:
        QreditError: it is none of the choices, or cannot be read as any of the types.
    """
    if value in words:
        return value
    if choices and value is not None and value not in choices:
        raise QreditError(f"{name} must be {' or '.join(choices)}, got {value!r}{_nearest(str(value), choices)}")
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null") and type(None) in kinds):
        if type(None) not in kinds:
            raise QreditError(f"{name} needs a value")
        return None
    word, read = next((found for kind, found in _READERS.items() if kind in kinds), ("text", _text))
    try:
        return read(value)
    except (TypeError, ValueError, OverflowError):
        raise QreditError(f"{name} must be {' or '.join((word, *words))}, got {value!r}") from None


def get_field_types(options: type, name: str) -> FieldTypes:
    """The types a field may have, a Literal counting as text."""
    hint = _get_hints(options)[name]
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(str if get_origin(part) is Literal else part for part in parts)


@lru_cache(maxsize=32)
def _get_hints(options: type) -> Mapping[str, Any]:
    """The types of all fields, worked out once for a class and not again for each of its fields."""
    return get_type_hints(options)


def _converted_if_simple(name: str, kinds: FieldTypes, value: Any) -> Any:
    """A value of a field that is not ours: read by its type if that is plain, else as a Python constant or text."""
    if set(kinds) <= {bool, int, float, type(None)}:
        return convert_value(name, kinds, value)
    from qredit.runs.options import parse_literal

    return parse_literal(value) if isinstance(value, str) else value


def _bool(value: Any) -> bool:
    word = str(value).lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(value)
    return word in _TRUE


def _int(value: Any) -> int:
    number = float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError(value)
    return int(number)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(value)
    return str(value)


_READERS: Mapping[type, tuple[str, Callable[[Any], Any]]] = {
    bool: ("true or false", _bool),
    float: ("a number", _float),
    int: ("a whole number", _int),
}


def _metavar(options: type, field: "dataclasses.Field[Any]") -> str:
    if field.metadata.get("choices"):
        return "|".join(field.metadata["choices"])
    kinds = get_field_types(options, field.name)
    if field.metadata.get("words"):
        return "|".join(("X", *field.metadata["words"]))
    return "true|false" if bool in kinds else "N" if int in kinds else "X" if float in kinds else "TEXT"


def _unknown_flag(parser: argparse.ArgumentParser, name: str, further: Iterable[str]) -> QreditError:
    flags = [text for action in parser._actions for text in action.option_strings if text.startswith("--")]
    if not name.startswith("-"):
        return QreditError(f"unexpected argument '{name}'; options start with --")
    return QreditError(f"unknown flag '{name}'{_nearest(name, [*flags, *map(make_flag, further)])}")


def _nearest(name: str, choices: Iterable[str]) -> str:
    found = find_nearest(name, choices)
    return "" if found is None else f"; did you mean '{found}'?"
