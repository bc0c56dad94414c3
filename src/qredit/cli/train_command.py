"""Train a model from questions and answers.

Without options: the pocket model on pocket-hotpot, GARL q = 0.75, cold prompts; about a minute on two cores.
Any field of QreditConfig (TRL's and transformers' training arguments) can be given too, as --name-of-field VALUE or as
a key of the YAML file: --report-to tensorboard,wandb sends every metric there as well.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from qredit.cli.finished_run import find_resumed, show_finished, tell_how_to_resume
from qredit.cli.parser import FieldTypes, Parser, add_options, build_options, get_field_types, read_yaml
from qredit.runs.folder import FORMER_BEHAVIOUR
from qredit.runs.options import TrainOptions
from qredit.utils.sanitize import escape_control_chars

if TYPE_CHECKING:
    from qredit.runs.plan import Plan

_OURS = ("output", "resume", "dry_run", "config", "quiet", "json")


def add_arguments(parser: Parser) -> None:
    """The flags of the run itself, then one for every option."""
    run = parser.add_argument_group("run")
    run.add_argument("--config", metavar="FILE", help="YAML file of options; flags win over it")
    run.add_argument("--output", metavar="DIR", help="run folder; default: runs/TASK-OBJECTIVE-TIME")
    run.add_argument("--resume", action="store_true", help="go on with the run in --output, with its own options")
    run.add_argument("--dry-run", action="store_true", help="show prompts, seam, sizes and memory; train nothing")
    add_options(parser, TrainOptions, "options")
    parser.extra_types = list_training_fields


def list_training_fields() -> dict[str, FieldTypes]:
    """Fields of QreditConfig that can be given beside the options, with the types each may have."""
    from qredit.trl import QreditConfig

    own = {field.name for field in dataclasses.fields(TrainOptions)} | {"output_dir", "config"}
    # --resume finds the checkpoint; models are loaded by the commands, which run no code of theirs
    unused = {"resume_from_checkpoint", "model_init_kwargs", "trust_remote_code"}
    names = [field.name for field in dataclasses.fields(QreditConfig)]
    return {name: get_field_types(QreditConfig, name) for name in names if name not in own | unused}


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Train, or show what would be done.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    own = {name: given.pop(name, None) for name in _OURS}
    options = merge_options(given, own["config"], find_resumed(own["output"], "train") if own["resume"] else None)
    from accelerate.utils import broadcast_object_list

    from qredit.runs.train import make_plan, train

    if own["dry_run"]:
        found = make_plan(options)
        show_plan(found, out)
        return found.as_dict()
    output = Path(broadcast_object_list([own["output"] or make_run_name(options)])[0])  # one clock names the folder
    with tell_how_to_resume(output, options.steps, "train"):
        finished = train(options, output, progress, resume=bool(own["resume"]))
    return show_finished(finished, str(options.make_objective()), out, progress.quiet)


def merge_options(given: Mapping[str, Any], config: str | None, resumed: Path | None) -> TrainOptions:
    """The options from the resumed run, then the YAML file, then the flags.

    Args:
        given: the flags by name.
        config: the YAML file.
        resumed: the run folder that goes on.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = []
    if resumed is not None:
        path = str(resumed / "config.yaml")
        sources.append((path, FORMER_BEHAVIOUR | read_yaml(path)))
    if config is not None:
        sources.append((config, read_yaml(config)))
    return build_options(TrainOptions, [*sources, ("the command line", given)], further=list_training_fields)


def make_run_name(options: TrainOptions) -> str:
    """A folder name that tells what the run is."""
    task, objective = (
        "".join(c if c.isalnum() or c in ".-" else "-" for c in text).strip("-")
        for text in (options.task, str(options.make_objective()))
    )
    return f"runs/{task[:40]}-{objective[:40]}-{datetime.now():%Y%m%d-%H%M%S}"


def _listed(ids: Sequence[Sequence[Any]], most: int = 16) -> str:
    """Ids with their texts on one line; of a long list the first and the last ones."""
    each = [f"{token} {text!r}" for token, text in ids]
    return "  ".join(each if len(each) <= most else [*each[: most // 2], "…", *each[-most // 2 :]])


def show_plan(found: "Plan", out: Console) -> None:
    """The plan in words; prompts and tokens come from data, and none of their characters is obeyed."""
    from qredit.runs.plan import format_memory, list_data_notices

    for number, prompt in enumerate(found.prompts, start=1):
        shown = prompt if len(prompt) <= 1200 else f"{prompt[:800]} … {prompt[-400:]}"
        out.print(f"[bold]prompt {number}[/bold]\n{escape(escape_control_chars(shown))}\n", soft_wrap=True)
        ids = _listed(found.prompt_ids[number - 1])
        out.print(f"ids       {escape(escape_control_chars(ids))}\n", soft_wrap=True)
    layout = ", ".join(f"{name} {text!r}" for name, text in found.seam["layout"].items())
    out.print(f"layout    {escape(escape_control_chars(layout))}, from {found.seam['end_from']}", soft_wrap=True)
    for name in ("closing", "appended", "end"):
        out.print(f"{name:<9} {escape(escape_control_chars(_listed(found.seam[name])))}", soft_wrap=True)
    lengths = {"prompt tokens": found.prompt_tokens, "answer tokens": found.answer_tokens}
    for name, spread in filter(itemgetter(1), lengths.items()):
        out.print(f"{name}: {spread['min']:g} to {spread['max']:g}, median {spread['median']:g}")
    facts = (
        found.as_dict()
        | found.filtered
        | {"train_examples": found.examples + found.left_out, "train_prompts": found.examples}
    )
    for notice in list_data_notices(facts):
        out.print(escape(escape_control_chars(notice)), soft_wrap=True)
    out.print(
        f"{found.examples} examples, {found.groups_per_step} groups of {found.rollouts_per_group} rollouts per step, "
        f"{found.steps_per_epoch} steps per epoch",
        soft_wrap=True,
    )
    thinking = found.max_completion_length - found.answer_budget
    gold = f"the longest gold answer has {found.answer_tokens['max']:g}" if found.answer_tokens else "no gold answers"
    out.print(
        f"max_completion_length={found.max_completion_length}: {thinking} tokens for the rationale and "
        f"answer_budget={found.answer_budget} for the answer ({gold})",
        soft_wrap=True,
    )
    out.print(f"{found.parameters:,} parameters")
    for line in format_memory(found.memory_gib):
        out.print(line, soft_wrap=True)
