"""Options of the commands that learn from given completions: some of those of training, some of their own."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from qredit.cli.parser import FieldTypes, get_field_types
from qredit.cli.shared_options import TEMPLATE_OPTIONS
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError

Source = tuple[str, Mapping[str, Any]]
"""Where options come from, for errors, and their values by name."""


def list_config_fields(kind: type, left_out: Collection[str]) -> dict[str, FieldTypes]:
    """Fields of one of TRL's configurations that can be given beside the options, with the types each may have.

    Args:
        kind: the configuration.
        left_out: its fields that have no effect, or are options already.
    """
    own = {field.name for field in dataclasses.fields(TrainOptions)} | {"output_dir", "config", *left_out}
    names = [field.name for field in dataclasses.fields(kind) if field.name not in own]
    return {name: get_field_types(kind, name) for name in names} | dict(TEMPLATE_OPTIONS)


def split_sources(sources: Sequence[Source], own: type, shared: Collection[str]) -> tuple[list[Source], list[Source]]:
    """The values of a command's own options, and all others, of each source.

    Args:
        sources: the weakest first.
        own: a dataclass of the command's own options.
        shared: those of training that the command has, too.

    Raises:
        QreditError: an option of training that the command does not have.
    """
    mine = {field.name for field in dataclasses.fields(own)}
    for where, source in sources:
        for key in source:
            if key in TrainOptions.__dataclass_fields__ and key not in {*shared, *mine}:
                raise QreditError(f"{key} in {where} is an option of `qredit train`, which this command does not have")
    picked: list[Source] = []
    rest: list[Source] = []
    for where, source in sources:
        picked.append((where, {key: value for key, value in source.items() if key in mine}))
        rest.append((where, {key: value for key, value in source.items() if key not in mine}))
    return picked, rest
