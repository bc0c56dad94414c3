"""The bars that runs and experiments show."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

_PERIOD = 3600.0  # seconds that an estimate looks back on: steps and jobs may take minutes each


def make_progress_bars(console: Console) -> Progress:
    """Bars with counts, elapsed time and an estimate of what is left; nothing is shown on a quiet console.

    Where the console is narrow the bar gives way, not the numbers.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("eta"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=console, speed_estimate_period=_PERIOD, disable=console.quiet)
