"""Show runs on one HTML page: curves, a summary in words, options, and the credit of every token.

`qredit report RUN [RUN …]` reads run folders and writes one file that works offline. A folder of `qredit demo` or
`qredit compare` is given by its runs: `qredit report runs/demo/g*`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from qredit.cli.parser import Parser, add_options, build_options
from qredit.runs.options import option


@dataclass(frozen=True)
class ReportOptions:
    """Where the page goes."""

    output: str = option("report.html", "the page; an older report of that name is replaced, no other file is")


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
    from qredit.report.write import write_report

    path = write_report(folders, Path(options.output).expanduser(), beside)
    out.print(f"report: {path}", markup=False, soft_wrap=True)
    return {"report": str(path), "runs": [str(folder) for folder in folders], "bytes": path.stat().st_size}
