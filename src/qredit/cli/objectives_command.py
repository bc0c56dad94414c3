"""List the objectives and the parts they are made of; name one to see what it claims and what it expands to."""

import inspect
from collections.abc import Mapping
from textwrap import fill
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from qredit.catalog import PARTS, about, catalog, signature
from qredit.cli.parser import Parser
from qredit.utils.errors import look_up

SECOND_HAND = "second-hand"
CERTAINTY = {
    "paper": "the paper's text",
    "code": "official code",
    "notes": "others' notes",
    "own": "our derivation",
}


def add_arguments(parser: Parser) -> None:
    """An objective or a part to look at."""
    parser.add_argument("name", nargs="?", help="objective, stage, penalty or surrogate to explain")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Show all of them, or one.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    if given["name"] is not None:
        return _explain(given["name"], out)
    listed = catalog()
    objectives = listed["objectives"]
    for family in dict.fromkeys(row["family"] for row in objectives):
        table = Table(title=f"{family} objectives", title_justify="left", title_style="bold", box=None)
        for column in ("name", "known from", "what it does", "source"):
            table.add_column(column, overflow="fold")
        for row in objectives:
            if row["family"] == family:
                known = f"[bold yellow]{row['known']}[/]" if row["known"] == SECOND_HAND else row["known"]
                table.add_row(row["name"], known, escape(row["summary"]), row["source"])
        out.print(table)
        out.print()
    for title in PARTS:
        text = Text(f"{title}\n", style="bold")
        for part in listed[title]:
            text.append(format_part(part, out.width))
        out.print(text, soft_wrap=True)
    return listed


def format_part(part: Mapping[str, Any], width: int) -> Text:
    """A part's signature, its name in bold, and below it what it does, both wrapped to `width` columns."""
    # The standard library wraps these hundred paragraphs in a tenth of the time that a padded renderable each takes.
    called = fill(
        part["name"] + part["signature"], width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    does = fill(part["summary"], width, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
    text = Text(f"{called}\n{does}\n", style="not bold")
    text.stylize("bold", 2, 2 + len(part["name"]))
    return text


def _explain(name: str, out: Console) -> Mapping[str, Any]:
    look_up("objective or part", name, {row["name"]: row for rows in catalog().values() for row in rows})
    from qredit.core.costs import list_costs
    from qredit.objectives import REGISTRY
    from qredit.objectives.parsing import PENALTIES, STAGES, SURROGATES, example

    explained: Any = {**STAGES, **PENALTIES, **SURROGATES, **REGISTRY}[name]
    text = inspect.getdoc(explained) or ""
    found: dict[str, Any] = {"name": name, "signature": signature(explained), "doc": text}
    out.print(f"[bold]{escape(name)}[/bold]{escape(found['signature'])}\n")
    if name in REGISTRY:
        found |= about(name, REGISTRY[name])
        out.print(
            escape(f"{describe_provenance(found)}\n"), style="bold yellow" if found["known"] == SECOND_HAND else None
        )
    out.print(escape(text))
    if name in REGISTRY:
        made = example(name)
        found |= {"expansion": made.expansion, "example": str(made)}
        known = CERTAINTY[found["certainty"]]
        out.print(f"\nfamily {found['family']}, {escape(found['source'])}, known from {known}")
        found["cost"] = list_costs(made)
        out.print(f"needs {', '.join(found['needs']) or 'nothing'}")
        out.print(f"costs {'; '.join(found['cost']) or 'nothing beyond log-probabilities and rewards'}\n")
        out.print(escape(f"{made}\n{made.expansion}"))
    return found


def describe_provenance(row: Mapping[str, Any]) -> str:
    """Where a method's formula was read, and the official code that it was compared with."""
    read = {
        "paper+code": "Known from the paper and official code.",
        "paper": "Known from the paper's text.",
        SECOND_HAND: "Second-hand: known from others' notes, not from the paper or official code. Check it before use.",
        "own": "Derived here.",
    }[row["known"]]
    compared = (
        f"Compared with official code: {row['official']}." if row["official"] else "Not compared with official code."
    )
    return f"{read} {compared}"
