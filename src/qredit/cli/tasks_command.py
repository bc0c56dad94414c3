"""List the tasks: what they are, where their data comes from, how answers are judged."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from qredit.cli.parser import Parser
from qredit.tasks import REGISTRY


def add_arguments(parser: Parser) -> None:
    """Nothing but the shared flags."""


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Show them."""
    for name, task in REGISTRY.items():
        data = "none needed" if name.startswith("pocket-") else task.default_data or "--data FILE"
        judged = f"data: {data}; reward: {task.reward}; metrics: {', '.join(task.metrics)}"
        out.print(f"[bold]{escape(name)}[/bold]")
        for text in (task.summary, judged):
            out.print(Padding(escape(text), (0, 0, 0, 4)))
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
