"""Compare objectives: the same model, questions and number of rollouts for each, over several seeds.

`qredit compare 'grpo()' 'dapo()' 'garl(q=0.75)'` trains each on a pocket task and shows held-out success, entropy,
length and time in one table and one figure. Runs that are done are taken from --output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from qredit.cli.options import Parser, add_options, build
from qredit.errors import QreditError
from qredit.run.options import check_least, option

if TYPE_CHECKING:
    from qredit.run.compare import Settings


@dataclass(frozen=True)
class CompareOptions:
    """How the objectives are compared."""

    task: str = option("pocket-hotpot", "pocket task")
    style: str = option("warm", "prompt style", "cold", "warm")
    steps: int = option(60, "optimiser steps of every run")
    lr: float = option(3e-4, "learning rate of every run")
    iterations: int = option(1, "times that each generation is learned from; ratios differ from 1 from the second on")
    seeds: int = option(3, "number of seeds")
    questions: int = option(128, "held-out questions, 16 samples each")
    workers: int = option(2, "runs side by side, one thread each")
    output: str = option("runs/compare", "folder for the runs, the table and the figure")

    def __post_init__(self) -> None:
        check_least(self, {"steps": 1, "iterations": 1, "seeds": 1, "questions": 1, "workers": 1})
        if not self.task.startswith("pocket-"):
            raise QreditError(
                f"objectives are compared on pocket tasks, got {self.task}; use `qredit train` for others"
            )


def add_arguments(parser: Parser) -> None:
    """The objectives, and how they are compared."""
    parser.add_argument("objectives", nargs="+", help="objectives in full, such as 'dapo()' or 'garl(q=0.75)'")
    add_options(parser, CompareOptions, "options")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Train and evaluate every objective with every seed, then show the table and draw the figure."""
    objectives = given.pop("objectives")
    options = build(CompareOptions, [("the command line", given)])
    from qredit.run.compare import Settings, compared, plot

    settings = Settings(
        task=options.task,
        style=options.style,  # type: ignore[arg-type]
        steps=options.steps,
        lr=options.lr,
        iterations=options.iterations,
        seeds=tuple(range(options.seeds)),
        questions=options.questions,
    )
    folder = Path(options.output)
    rows = compared(objectives, settings, folder, progress, options.workers)
    picture = folder / "compare.png"
    plot(rows, picture, f"{options.task}, {options.style} prompts")
    _show(rows, settings, out)
    out.print(f"\nfigure: {picture}", soft_wrap=True)
    return {"rows": [row.summary() for row in rows], "figure": str(picture)}


def _show(rows: Sequence[Any], settings: "Settings", out: Console) -> None:
    table = Table(title=f"{settings.task}, {settings.style} prompts, {settings.steps} steps", title_justify="left")
    for name in ("objective", "p@1 in %", "p@16 in %", "entropy", "tokens", "seconds"):
        table.add_column(name, justify="left" if name == "objective" else "right")
    for row in rows:
        table.add_row(row.objective, *(row.cell(name) for name in ("p@1", "p@16", "entropy", "length", "seconds")))
    out.print(table)
    out.print(
        "held-out success; entropy (nats a token) and length of the rollouts, last five steps; time of training. "
        "Mean over seeds, smallest and largest in brackets."
    )
