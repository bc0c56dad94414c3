"""Supervised fine-tuning on questions and answers, with rationales where the data has any.

Learns to write the completion that the format lays out: the rationale, if there is one, the end of thinking, the answer
and its end. The loss is the mean negative log-likelihood of these tokens. `qredit train --model RUN/final` goes on from
there. Any field of TRL's SFTConfig that has an effect can be given too, as --name-of-field VALUE or as a key of the
YAML file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from qredit.cli.offline_options import add_run_arguments, list_config_fields, list_sources, run_offline
from qredit.cli.parser import FieldTypes, Parser, add_options, build_options, select_fields
from qredit.cli.shared_options import split_sources
from qredit.runs.options import TrainOptions
from qredit.runs.sft_options import SHARED_WITH_TRAIN, SftOptions, ShownOptions

_HELP = {"lr": "learning rate; default 3e-4 (pocket), 1e-4 (--lora), 1e-5 (full fine-tuning)"}


def add_arguments(parser: Parser) -> None:
    """The flags of the run itself, then one for every option."""
    add_run_arguments(parser, "sft")
    add_options(parser, ShownOptions, "what is shown")
    add_options(parser, select_fields(TrainOptions, SHARED_WITH_TRAIN, _HELP), "options, as in `qredit train`")
    parser.extra_types = list_sft_fields


def list_sft_fields() -> dict[str, FieldTypes]:
    """Fields of SFTConfig that can be given beside the options, with the types each may have."""
    from qredit.trl.sft_config import NOT_READ, SftConfig

    return list_config_fields(SftConfig, NOT_READ)


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Fine-tune, and say where the model is.

    Args:
        given: flags by name, as they were given.
        out: where results are shown.
        progress: where what goes on is shown.
    """
    return run_offline("sft", given, merge_options, _learn, out, progress)


def _learn(*args: Any, **kwargs: Any) -> Any:
    from qredit.runs.sft import finetune  # here, for it loads torch, which a misspelt option does not need

    return finetune(*args, **kwargs)


def merge_options(given: Mapping[str, Any], config: str | None, resumed: Path | None) -> SftOptions:
    """The options from the resumed run, then the YAML file, then the flags.

    Args:
        given: the flags, by name.
        config: a YAML file.
        resumed: the folder of the run to go on with.

    Raises:
        QreditError: an unknown key (with the nearest one), or a value that cannot be used.
    """
    sources = list_sources(given, config, resumed)
    shown, rest = split_sources(sources, ShownOptions, SHARED_WITH_TRAIN)
    return SftOptions(build_options(TrainOptions, rest, further=list_sft_fields), build_options(ShownOptions, shown))
