"""List the objectives and the stages they are made of; name one to see what it claims and what it expands to."""

import inspect
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from qredit.cli.options import read_arguments
from qredit.errors import look_up
from qredit.objectives import REGISTRY
from qredit.run.options import TrainOptions
from qredit.text import STAGES


def add_arguments(parser: ArgumentParser) -> None:
    """An objective or a stage to look at."""
    parser.add_argument("name", nargs="?", help="objective or stage to explain")


def read(parser: ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    """The flags given."""
    return read_arguments(parser, argv)


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Show all of them, or one."""
    if given["name"] is not None:
        return _explain(given["name"], out)
    listed = {"objectives": _summaries(REGISTRY), "stages": _summaries(STAGES)}
    for title, rows in listed.items():
        out.print(f"[bold]{title}[/bold]")
        for name, (signature, text) in rows.items():
            out.print(Padding(f"[bold]{escape(name)}[/bold]{escape(signature)}", (0, 0, 0, 2)))
            out.print(Padding(escape(text), (0, 0, 0, 6)))
    return {
        title: [{"name": name, "signature": signature, "summary": text} for name, (signature, text) in rows.items()]
        for title, rows in listed.items()
    }


def _explain(name: str, out: Console) -> Mapping[str, Any]:
    explained = look_up("objective or stage", name, {**REGISTRY, **STAGES})
    text = inspect.getdoc(explained) or ""
    found = {"name": name, "signature": _signature(explained), "doc": text}
    out.print(f"[bold]{escape(name)}[/bold]{escape(found['signature'])}\n\n{escape(text)}")
    if name in REGISTRY:
        found["expansion"] = TrainOptions(objective=name).made_objective().expansion
        out.print(f"\n{escape(found['expansion'])}")
    return found


def _summaries(things: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        name: (_signature(thing), (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " "))
        for name, thing in sorted(things.items())
    }


def _signature(thing: Any) -> str:
    parameters = inspect.signature(thing).parameters.values()
    return f"({', '.join(p.name if p.default is p.empty else f'{p.name}={p.default!r}' for p in parameters)})"
