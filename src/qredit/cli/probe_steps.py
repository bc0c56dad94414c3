"""What `qredit probe --steps` shows: the gold answer's entropy along rationales, right ones and wrong ones."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from qredit.probe.steps import StepSummary


def show_steps(summaries: "Sequence[StepSummary]", out: Console) -> None:
    """A table of the rollouts, and the entropy of the first tokens of their steps.

    Args:
        summaries: of right and of wrong rollouts.
        out: where they are shown.
    """
    table = Table(title="entropy of the gold answer along a rationale, nats a token of it", title_justify="left")
    table.add_column("")
    for one in summaries:
        table.add_column(f"{one.name} answers", justify="right")
    for name, show in _ROWS:
        table.add_row(name, *map(show, summaries))
    out.print(table)
    for one in summaries:
        told = ", ".join(f"{value:.3g}" for value in one.first)
        out.print(f"{one.name}: entropy of the first token of step 1, 2, …: {told} nats", soft_wrap=True)


_ROWS: "Sequence[tuple[str, Callable[[StepSummary], str]]]" = (
    ("rollouts", lambda one: str(one.rollouts)),
    ("steps", lambda one: f"{one.steps:.1f}"),
    ("at the prompt", lambda one: f"{one.along[0]:.3g}"),
    ("after 1/4 of the steps", lambda one: f"{one.along[1]:.3g}"),
    ("after 1/2", lambda one: f"{one.along[2]:.3g}"),
    ("after 3/4", lambda one: f"{one.along[3]:.3g}"),
    ("after all", lambda one: f"{one.along[4]:.3g}"),
    ("fall from first to last", lambda one: one.utility.format("{:.3g}".format)),
    ("steps that lower it", lambda one: f"{100 * one.falling:.0f} %"),
)
