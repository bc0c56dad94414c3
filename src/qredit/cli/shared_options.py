"""Options of data and format: what commands that ask a model questions share with training."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from qredit.cli.parser import FieldTypes, Parser, add_options, get_field_types, select_fields
from qredit.runs.options import EPISODE_OPTIONS, TrainOptions
from qredit.samplers.vllm.settings import PREFIX, VllmSettings
from qredit.utils.errors import QreditError

Source = tuple[str, Mapping[str, Any]]
"""Where options come from, for errors, and their values by name."""
FOUR_BIT_OPTIONS = ("load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant")
SHARED_OPTIONS = (
    "task", "data", "style", "passages", "prompt_column", "answer_column", "aliases_column", "aliases", "system_prompt",
    "instruction", "few_shot", "coldness", "chat", "max_completion_length", "answer_budget", "thinking_opening",
    "thinking_closing", "answer_seam", "answer_end", "skip_long", "cpu", "dtype",
    "env", "tools", *EPISODE_OPTIONS,
    *FOUR_BIT_OPTIONS,
)  # fmt: skip
TEMPLATE_OPTIONS: Mapping[str, FieldTypes] = {"chat_template_kwargs": (dict,)}
ENGINE_OPTIONS: Mapping[str, FieldTypes] = {
    "use_vllm": (bool,),
    **{f"{PREFIX}{field.name}": get_field_types(VllmSettings, field.name) for field in fields(VllmSettings)},
}
"""What samples: no property of the model that is asked, so it is not taken from the run that made it."""


def add_shared_options(parser: Parser, *more: str) -> None:
    """A flag for each option of training that counts, and for `more` of them."""
    add_options(parser, select_fields(TrainOptions, (*SHARED_OPTIONS, *more)), "data and format, as in `qredit train`")
    parser.extra_types = list_template_options


def list_template_options() -> Mapping[str, FieldTypes]:
    """What may be given beside the options of training where questions are only asked."""
    return {**TEMPLATE_OPTIONS, **ENGINE_OPTIONS}


def split_sources(sources: Sequence[Source], own: type, shared: Collection[str]) -> tuple[list[Source], list[Source]]:
    """The values of a command's own options, and all others, of each source.

    Args:
        sources: the weakest first.
        own: a dataclass of the command's own options.
        shared: those of training that the command has, too.

    Raises:
        QreditError: an option of training that the command does not have.
    """
    mine = {field.name for field in fields(own)}
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


def list_settings(
    asked: Any, options: TrainOptions, shared: Collection[str], unsaid: Collection[str]
) -> dict[str, Any]:
    """What the rows that a command writes hang on, as it is read from a file.

    Args:
        asked: the command's own options.
        options: those of training.
        shared: which of these the command has.
        unsaid: of its own, those that change no row.
    """
    own = {name: value for name, value in asdict(asked).items() if name not in unsaid}
    others = {name: getattr(options, name) for name in shared} | {"training": dict(options.training)}
    kept: dict[str, Any] = json.loads(json.dumps({**others, **own}, default=str))
    return kept
