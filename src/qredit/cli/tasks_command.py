"""List the tasks: what they are, where their data comes from, how answers are judged."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from qredit.cli.parser import Parser
from qredit.tasks import FAMILIES, REGISTRY


def add_arguments(parser: Parser) -> None:
    """Nothing but the shared flags."""


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Show them.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    for name, task in REGISTRY.items():
        data = "none needed" if name.startswith("pocket-") else task.default_data or "--data FILE"
        judged = f"data: {data}; reward: {task.reward}; metrics: {', '.join(task.metrics)}"
        _show(name, (task.summary, judged), out)
    for family in FAMILIES.values():
        _show(family.written, (family.summary, f"data: none needed; {family.judged}"), out)
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
        ],
        "families": [
            {"name": name, "written": family.written, "summary": family.summary} for name, family in FAMILIES.items()
        ],
    }


def _show(name: str, texts: Sequence[str], out: Console) -> None:
    out.print(f"[bold]{escape(name)}[/bold]")
    for text in texts:
        out.print(Padding(escape(text), (0, 0, 0, 4)))
