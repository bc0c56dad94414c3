"""Write a task's examples as the parquet files that verl reads.

TASK is the name of a task, or the YAML file of a recipe, of which what concerns the data is read. OUT is a folder: it
gets train.parquet and validation.parquet, for verl's data.train_files and data.val_files. Their columns are those of
verl: prompt (messages), reward_model.ground_truth, data_source (the task), extra_info (split, index, id, aliases and
further columns of your data).
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from qredit.cli.parser import FieldTypes, Parser, add_options, build_options, read_yaml, select_fields
from qredit.runs.options import TrainOptions
from qredit.utils.extras import MissingExtraError
from qredit.utils.sanitize import escape_control_chars

DATA_OPTIONS = (
    "data", "style", "passages", "prompt_column", "answer_column", "aliases_column", "system_prompt", "instruction",
    "few_shot", "subset", "hold_out",
)  # fmt: skip


def add_arguments(parser: Parser) -> None:
    """Task and folder, then the options of training that concern the data."""
    parser.add_argument("task", metavar="TASK", help="name of a task (see `qredit tasks`), or YAML file of a recipe")
    parser.add_argument("out", metavar="OUT", help="folder that the files are written into")
    parser.add_argument("--splits", metavar="LIST", help="train, validation, test; default: train,validation")
    add_options(parser, select_fields(TrainOptions, DATA_OPTIONS), "data, as in `qredit train`")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Write the files, and say how many rows each holds.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    task, folder, splits = (given.pop(name, None) for name in ("task", "out", "splits"))
    options = read_data_options(task, given)
    from qredit.runs.verl_data import parse_splits, write_verl_data

    written = write_verl_data(options, Path(folder), parse_splits(splits) if splits is not None else ())
    for one in written:
        out.print(escape(escape_control_chars(f"{one.file}: {one.rows} rows")), soft_wrap=True)
        for note in one.notes:
            out.print(escape(escape_control_chars(note)), soft_wrap=True)
    return {"files": [{"file": str(one.file), "rows": one.rows, "notes": list(one.notes)} for one in written]}


def read_data_options(task: str, flags: Mapping[str, Any]) -> TrainOptions:
    """The options of a task, or those of a recipe's data, with the flags over them.

    Args:
        task: its name, or a recipe's file.
        flags: by name.

    Raises:
        QreditError: what cannot be used of a recipe or of the flags; a recipe without a task.
    """
    own: tuple[str, Mapping[str, Any]] = ("the command line", {**flags, "task": task})
    if not task.endswith((".yaml", ".yml")):
        return build_options(TrainOptions, [own])
    recipe = read_yaml(task)
    # All of it is checked; what says how to train is then left aside, so that no flag can contradict it.
    build_options(TrainOptions, [(task, recipe)], further=lambda: _list_training_fields(recipe))
    kept = {key: value for key, value in recipe.items() if key in ("task", *DATA_OPTIONS)}
    return build_options(TrainOptions, [(task, kept), ("the command line", flags)])


def _list_training_fields(recipe: Mapping[str, Any]) -> dict[str, FieldTypes]:
    """TRL's fields that a recipe may hold; whatever it holds where TRL is not installed to ask."""
    from qredit.cli.train_command import list_training_fields

    try:
        return list_training_fields()
    except MissingExtraError:
        return dict.fromkeys(set(recipe) - {field.name for field in fields(TrainOptions)}, (str,))
