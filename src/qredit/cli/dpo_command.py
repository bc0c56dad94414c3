"""Training on preferences: of two rollouts of one prompt, the model learns to prefer the one with the larger reward.

--run RUN names a run folder. Its final model is trained, on pairs of the rollouts that it kept (`qredit train
--keep-rollouts`), or of --rollouts N fresh ones for each of its training questions. The losses are TRL's. What RUN says
of data, format and reward holds here, too. `qredit train --model RUN/final` goes on from what is made. Any field of
TRL's DPOConfig that has an effect can be given too, as --name-of-field VALUE or as a key of the YAML file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from qredit.cli.offline_options import (
    add_run_arguments,
    check_model_known,
    list_config_fields,
    list_sources,
    read_source_run,
    run_offline,
)
from qredit.cli.parser import FieldTypes, Parser, add_options, build_options, select_fields
from qredit.cli.shared_options import split_sources
from qredit.runs.dpo_options import DEFAULT_RATES, SAMPLING_OPTIONS, SHARED_WITH_TRAIN, DpoOptions, PairOptions
from qredit.runs.folder import RunFolder
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError

_HELP = {
    "lr": "learning rate; default 1e-4 (after a run of a pocket model), 1e-5 (--lora), 1e-6 (full fine-tuning)",
    "model": "model folder or id, in the place of RUN's final model",
    "prompts_per_step": "pairs per optimiser step, over all processes",
    "prompts_per_forward": "pairs per forward pass; default: all of a process's",
}


def add_arguments(parser: Parser) -> None:
    """The flags of the run itself, then one for every option."""
    add_run_arguments(parser, "dpo")
    add_options(parser, PairOptions, "pairs and loss")
    add_options(parser, select_fields(TrainOptions, SHARED_WITH_TRAIN, _HELP), "options, as in `qredit train`")
    parser.extra_types = list_dpo_fields


def list_dpo_fields() -> dict[str, FieldTypes]:
    """Fields of DPOConfig that can be given beside the options, with the types each may have."""
    from qredit.trl.dpo_config import NOT_READ, DpoConfig

    return list_config_fields(DpoConfig, {*NOT_READ, *PairOptions.__dataclass_fields__})


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Train on preferences, and say where the model is.

    Args:
        given: flags by name, as they were given.
        out: where results are shown.
        progress: where what goes on is shown.
    """
    return run_offline("dpo", given, merge_options, _learn, out, progress)


def _learn(*args: Any, **kwargs: Any) -> Any:
    from qredit.runs.dpo import train_on_preferences  # here, for it loads torch, which a misspelt option does not need

    return train_on_preferences(*args, **kwargs)


def merge_options(given: Mapping[str, Any], config: str | None, resumed: Path | None) -> DpoOptions:
    """The options from the resumed run, then the YAML file, then the flags; what RUN says comes before them all.

    Args:
        given: the flags, by name.
        config: a YAML file.
        resumed: the folder of the run to go on with, which says everything itself.

    Raises:
        QreditError: an unknown key (with the nearest one), a value that cannot be used, no RUN.
    """
    sources = list_sources(given, config, resumed)
    own, rest = split_sources(sources, PairOptions, SHARED_WITH_TRAIN)
    pairs = build_options(PairOptions, own)
    if resumed is not None:
        return DpoOptions(build_options(TrainOptions, rest, further=list_dpo_fields), pairs)
    trained, inherited = read_source_run(pairs.run, "whose rollouts are paired")
    rate = {"lr": DEFAULT_RATES["pocket"]} if trained.is_pocket else {}
    name = str(RunFolder(Path(str(pairs.run))).config)
    check_model_known(str(pairs.run), inherited, *(source for _, source in rest))
    options = build_options(TrainOptions, [(name, {**inherited, **rate}), *rest], further=list_dpo_fields)
    for option in SAMPLING_OPTIONS:
        if pairs.rollouts is None and getattr(options, option) != getattr(trained, option):
            raise QreditError(
                f"{option} needs rollouts: those that the run in {pairs.run} kept were drawn and scored before"
            )
    return DpoOptions(options, pairs)
