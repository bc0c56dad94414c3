"""Options of the commands that learn from given completions: some of those of training, some of their own."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from qredit.cli.finished_run import find_resumed, show_finished, tell_how_to_resume
from qredit.cli.parser import FieldTypes, Parser, build_options, get_field_types, read_yaml
from qredit.cli.shared_options import TEMPLATE_OPTIONS, Source, list_template_options
from qredit.runs.folder import RunFolder
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError

_OURS = ("output", "resume", "config")


def add_run_arguments(parser: Parser, command: str) -> None:
    """The flags of the run itself.

    Args:
        parser: of the command.
        command: its name, which the default folder holds.
    """
    run = parser.add_argument_group("run")
    run.add_argument("--config", metavar="FILE", help="YAML file of options; flags win over it")
    run.add_argument("--output", metavar="DIR", help=f"run folder; default: runs/TASK-{command}-TIME")
    run.add_argument("--resume", action="store_true", help="go on with the run in --output, with its own options")


def run_offline(
    command: Literal["sft", "dpo"],
    given: dict[str, Any],
    merge: Callable[[Mapping[str, Any], str | None, Path | None], Any],
    learn: Callable[..., Any],
    out: Console,
    progress: Console,
) -> Mapping[str, Any]:
    """Train, and say where the model is.

    Args:
        command: its name.
        given: flags by name, as they were given.
        merge: (flags, a YAML file, the folder of the run to go on with) → options.
        learn: (options, run folder, console, resume=…) → the finished run.
        out: where results are shown.
        progress: where what goes on is shown.
    """
    own = {name: given.pop(name, None) for name in _OURS}
    options = merge(given, own["config"], find_resumed(own["output"], command) if own["resume"] else None)
    from accelerate.utils import broadcast_object_list

    name = f"runs/{options.run.task}-{command}-{datetime.now():%Y%m%d-%H%M%S}"
    output = Path(broadcast_object_list([own["output"] or name])[0])  # one clock names the folder
    with tell_how_to_resume(output, options.run.steps, command):
        finished = learn(options, output, progress, resume=bool(own["resume"]))
    return show_finished(finished, options.label, out, progress.quiet)


def list_sources(given: Mapping[str, Any], config: str | None, resumed: Path | None) -> list[Source]:
    """Where options come from, the weakest first: the resumed run, then the YAML file, then the flags.

    Args:
        given: the flags, by name.
        config: a YAML file.
        resumed: the folder of the run to go on with.
    """
    files = [
        *([str(resumed / "config.yaml")] if resumed is not None else []),
        *([config] if config is not None else []),
    ]
    return [*((file, read_yaml(file)) for file in files), ("the command line", given)]


def list_config_fields(kind: type, left_out: Collection[str]) -> dict[str, FieldTypes]:
    """Fields of one of TRL's configurations that can be given beside the options, with the types each may have.

    Args:
        kind: the configuration.
        left_out: its fields that have no effect, or are options already.
    """
    own = {field.name for field in dataclasses.fields(TrainOptions)} | {"output_dir", "config", *left_out}
    names = [field.name for field in dataclasses.fields(kind) if field.name not in own]
    return {name: get_field_types(kind, name) for name in names} | dict(TEMPLATE_OPTIONS)


def read_source_run(run: str | None, what: str) -> tuple[TrainOptions, Mapping[str, Any]]:
    """The options of the run that is gone on from, and what is taken of it, its final model included.

    Args:
        run: its folder.
        what: whose run it is, in words, for errors.

    Raises:
        QreditError: no run is named, or there is none in that folder.
    """
    if run is None:
        raise QreditError(f"run is needed: the folder of the run {what} (--run RUN)")
    folder = RunFolder(Path(run).expanduser())
    if not folder.config.is_file():
        raise QreditError(f"no run in {run}: there is no {folder.config.name}")
    from qredit.runs.source_run import READ_OPTIONS, find_run_model, inherit_options

    kept = {key: value for key, value in read_yaml(str(folder.config)).items() if key in READ_OPTIONS}
    trained = build_options(TrainOptions, [(str(folder.config), kept)], further=list_template_options)
    model = find_run_model(folder)
    return trained, {**inherit_options(trained), **({} if model is None else {"model": str(model)})}


def check_model_known(run: str, *sources: Mapping[str, Any]) -> None:
    """Refuse a run without a model where none is given.

    Args:
        run: its folder.
        sources: options, those of the run among them.

    Raises:
        QreditError: none of them names a model.
    """
    if not any("model" in source for source in sources):
        raise QreditError(f"the run in {run} has neither a final model nor a whole checkpoint; give model")
