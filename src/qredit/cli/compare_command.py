"""Compare objectives: the same model, questions and number of rollouts for each, over several seeds.

`qredit compare 'grpo()' 'dapo()' 'garl(q=0.75)'` trains each on a pocket task, or on data and a model of your own, and
shows held-out success, entropy, length and time in one table and one figure. Of a single file, --questions rows are
held out of training; of other data, the test split is asked. Runs that are done are taken from --output.
'sft(steps=40) then grpo()' fine-tunes on the training questions' answers first, as `qredit sft` does.
--config FILE holds a comparison, objectives and options, as recipes/compare does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qredit.cli.parser import Parser, add_options, build_options, read_yaml, select_fields
from qredit.cli.shared_options import SHARED_OPTIONS, list_template_options, split_sources
from qredit.runs.options import TrainOptions, check_minimums, option
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.sanitize import escape_control_chars

if TYPE_CHECKING:
    from qredit.runs.compare import ComparisonSettings

_MORE = (
    "model", "reward", "subset", "m", "prompts_per_step", "prompts_per_forward", "rows_per_forward", "warmup", "lora",
    "lora_r",
)  # fmt: skip


@dataclass(frozen=True)
class CompareOptions:
    """How the objectives are compared."""

    task: str = option("pocket-hotpot", "task; jsonl with --data and --model for questions of your own")
    style: str = option("warm", "prompt style", "cold", "warm")
    steps: int = option(60, "optimiser steps of every run")
    lr: float | None = option(None, "learning rate of every run; default: 3e-4 (pocket), otherwise as in train")
    iterations: int = option(1, "times that each generation is learned from; ratios differ from 1 from the second on")
    field: tuple[str, ...] = dataclass_field(default=(), metadata=TrainOptions.__dataclass_fields__["field"].metadata)
    seeds: int = option(3, "number of seeds")
    questions: int = option(128, "held-out questions, 16 samples each")
    workers: int | None = option(None, "runs side by side; default: 2, one thread each (pocket), or 1")
    output: str = option("runs/compare", "folder for the runs, the table and the figure")

    def __post_init__(self) -> None:
        check_minimums(self, {"steps": 1, "iterations": 1, "seeds": 1, "questions": 1, "workers": 1})


def _list_shared_options() -> list[str]:
    """Options of training that every run has as they are given."""
    own = CompareOptions.__dataclass_fields__
    return [name for name in (*SHARED_OPTIONS, *_MORE) if name not in own]


def add_arguments(parser: Parser) -> None:
    """The objectives, how they are compared, and what all runs share."""
    parser.add_argument(
        "objectives",
        nargs="*",
        help="objectives in full, such as 'dapo()', 'garl(q=0.75)' or 'sft(steps=40) then grpo()'",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of these options and a list of objectives; what is given here wins"
    )
    add_options(parser, CompareOptions, "options")
    add_options(parser, select_fields(TrainOptions, _list_shared_options()), "of every run, as in `qredit train`")
    parser.extra_types = list_template_options


def _read_config(path: str) -> dict[str, Any]:
    """The options and objectives of a comparison in a YAML file.

    Raises:
        QreditError: it cannot be read, holds an option that a comparison does not take, or objectives that are no list
            of texts.
    """
    found = read_yaml(path)
    known = ("objectives", *CompareOptions.__dataclass_fields__, *_list_shared_options())
    for name in found:
        if name not in known and name not in list_template_options():
            raise unknown_name_error(f"option of compare in {path}", name, known)
    listed = found.get("objectives", [])
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise QreditError(f"objectives in {path} must be a list of texts such as 'garl(q=0.75)', got {listed!r}")
    return found


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Train and evaluate every objective with every seed, then show the table and draw the figure.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    config = given.pop("config", None)
    told = {} if config is None else _read_config(config)
    objectives = given.pop("objectives") or told.pop("objectives", [])
    told.pop("objectives", None)
    if not objectives:
        raise QreditError("nothing to compare: give objectives, or --config FILE with a list of them")
    sources = ((str(config), told), ("the command line", given))
    own, shared = split_sources(sources, CompareOptions, _list_shared_options())
    options = build_options(CompareOptions, own)
    same = {"task": options.task, "style": options.style}
    base = build_options(TrainOptions, [*shared, ("the comparison", same)], list_template_options)
    from qredit.runs.compare import ComparisonSettings, compare_objectives, load_held_out, plot_comparison

    settings = ComparisonSettings(
        task=options.task,
        style=options.style,  # type: ignore[arg-type]
        steps=options.steps,
        lr=options.lr,
        iterations=options.iterations,
        seeds=tuple(range(options.seeds)),
        questions=options.questions,
        fields=options.field,
        base=base,
    )
    asked = load_held_out(settings)
    folder = Path(options.output)
    rows = compare_objectives(objectives, settings, folder, progress, options.workers or (2 if base.is_pocket else 1))
    picture = folder / "compare.png"
    graded = base.rewards != "exact_match"
    plot_comparison(
        rows,
        picture,
        f"{options.task}, {options.style} prompts",
        "mean reward (× 100)" if graded else "successful rollouts (%)",
    )
    _show(rows, settings, len(asked.examples), out)
    for note in asked.notes:
        out.print(escape(escape_control_chars(note)), soft_wrap=True)
    out.print(f"\nfigure: {escape(escape_control_chars(str(picture)))}", soft_wrap=True)
    return {
        "rows": [row.summary() for row in rows],
        "held_out": len(asked.examples),
        "held_out_of": base.data if settings.held.split == "validation" else None,
        "figure": str(picture),
    }


def _show(rows: Sequence[Any], settings: "ComparisonSettings", asked: int, out: Console) -> None:
    style = f", {settings.style} prompts" if settings.task != "jsonl" else ""
    table = Table(title=f"{settings.task}{style}, {settings.steps} steps", title_justify="left")
    for name in ("objective", "p@1 in %", "p@16 in %", "entropy", "tokens", "seconds"):
        table.add_column(name, justify="left" if name == "objective" else "right")
    for row in rows:
        cells = (row.cell(name) for name in ("p@1", "p@16", "entropy", "length", "seconds"))
        table.add_row(escape(row.objective), *map(escape, cells))
    out.print(table)
    data = settings.base.data
    where = f"{asked} questions of the {settings.held.split} split"
    if data is not None and settings.held.split == "validation":
        where = f"{asked} rows of {Path(data).name} that were held out of training"
    out.print(
        escape(escape_control_chars(f"p@1 and p@16: success by {settings.base.rewards} on {where}")), soft_wrap=True
    )
    out.print(
        "entropy (nats a token) and length of the rollouts, last five steps; time of training. "
        "Mean over seeds, smallest and largest in brackets."
    )
