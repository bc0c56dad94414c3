"""Show runs on one HTML page: curves, a summary in words, options, and the credit of every token.

`qredit report RUN [RUN …]` reads run folders and writes one file that works offline. A folder of `qredit demo` or
`qredit compare` is given by its runs: `qredit report runs/demo/g*`. With --checklist also what these runs together tell
of the fourteen items that a paper on credit assignment is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qredit.cli.parser import Parser, add_options, build_options
from qredit.runs.options import option
from qredit.utils.sanitize import escape_control_chars

if TYPE_CHECKING:
    from qredit.report.checklist import Item


@dataclass(frozen=True)
class ReportOptions:
    """Where the page goes."""

    output: str = option("report.html", "the page; an older report of that name is replaced, no other file is")
    checklist: bool = option(
        False, "fill the reporting checklist of arXiv 2604.09459 from the runs, and name its holes"
    )


def add_arguments(parser: Parser) -> None:
    """The runs, and what is shown beside them."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="OBJECTIVE",
        help="an objective that the credit viewer recomputes on the recorded rollouts; may be given several times",
    )
    add_options(parser, ReportOptions, "options")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Read the runs, write the page, say where it is.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    folders, beside = given.pop("runs"), given.pop("beside")
    options = build_options(ReportOptions, [("the command line", given)])
    from qredit.report.checklist import fill_checklist
    from qredit.report.collect import collect_runs
    from qredit.report.write import write_page

    runs = collect_runs(folders)
    items = fill_checklist(runs) if options.checklist else []
    path = write_page(runs, Path(options.output).expanduser(), beside, items)
    if items:
        out.print(format_checklist(items))
    out.print(f"report: {path}", markup=False, soft_wrap=True)
    found = {"report": str(path), "runs": [str(folder) for folder in folders], "bytes": path.stat().st_size}
    return found | ({"checklist": list(map(describe_item, items))} if items else {})


def format_checklist(items: "Sequence[Item]") -> Table:
    """The items as a table; recommended ones are marked."""
    table = Table(box=None, title="reporting checklist (arXiv 2604.09459)", title_justify="left")
    for column in ("", "item", "status", "what the runs tell", "what they do not"):
        table.add_column(column, overflow="fold")
    for item in items:
        text = item.text if item.required else f"{item.text} (recommended)"
        cells = (text, item.finding.status, item.finding.told, item.finding.missing)
        table.add_row(str(item.number), *(Text(escape_control_chars(cell)) for cell in cells))
    return table


def describe_item(item: "Item") -> dict[str, Any]:
    """An item as JSON."""
    return {
        "number": item.number,
        "item": item.text,
        "required": item.required,
        "status": item.finding.status,
        "told": item.finding.told,
        "missing": item.finding.missing,
    }
