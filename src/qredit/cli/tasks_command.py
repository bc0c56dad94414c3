"""List the tasks: what they are, where their data comes from, how answers are judged."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qredit.cli.options import read_arguments
from qredit.tasks import REGISTRY


def add_arguments(parser: ArgumentParser) -> None:
    """Nothing but the shared flags."""


def read(parser: ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    """The flags given."""
    return read_arguments(parser, argv)


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Show them."""
    table = Table(show_edge=True)
    table.add_column("task", no_wrap=True)
    for title in ("what it is", "data", "reward", "metrics"):
        table.add_column(title)
    for name, task in REGISTRY.items():
        data = "none needed" if name.startswith("pocket-") else task.default_data or "--data FILE"
        table.add_row(*map(escape, (name, task.summary, data, task.reward, ", ".join(task.metrics))))
    out.print(table)
    return {
        "tasks": [
            {
                "name": name,
                "summary": task.summary,
                "data": task.default_data,
                "reward": task.reward,
                "metrics": list(task.metrics),
                "sizes": dict(task.sizes),
            }
            for name, task in REGISTRY.items()
        ]
    }
