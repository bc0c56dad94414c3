"""Measure the theorems, and say whether the numbers agree with them.

Each one writes a plot (PNG) and every point of it (CSV), and prints a table and its verdict. `all` measures every one.
"""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qredit.cli.parser import Parser, add_options, build_options
from qredit.lab import REGISTRY
from qredit.runs.folder import ensure_writable
from qredit.runs.options import option
from qredit.utils.atomic_files import atomic_write
from qredit.utils.errors import look_up
from qredit.utils.threads import compute_on

if TYPE_CHECKING:
    from qredit.lab.finding import Finding

ALL = "all"


@dataclass(frozen=True)
class LabOptions:
    """Where the files go."""

    output: str = option("runs/lab", "folder for the plots and their points")


def add_arguments(parser: Parser) -> None:
    """The theorem, and where its files go."""
    parser.add_argument("theorem", help=f"{', '.join(REGISTRY)}, or {ALL}")
    add_options(parser, LabOptions, "options")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Measure one theorem, or all of them by name.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    asked = given.pop("theorem")
    options = build_options(LabOptions, [("the command line", given)])
    look_up("theorem", asked, {**REGISTRY, ALL: None})
    folder = ensure_writable(Path(options.output))
    found: dict[str, Any] = {}
    for name in REGISTRY if asked == ALL else (asked,):
        finding, files = measure_and_plot(name, folder, progress)
        show_finding(name, finding, out)
        out.print(f"plot: {escape(files['png'])}, points: {escape(files['csv'])}\n", soft_wrap=True)
        found[name] = finding_to_dict(finding) | files
    return found if asked == ALL else found[asked]


def measure_and_plot(name: str, folder: Path, progress: Console) -> "tuple[Finding, dict[str, str]]":
    """Measure a theorem; draw it and write its points. The paths of the two files come with it.

    Args:
        name: of the theorem.
        folder: where files go.
        progress: where progress bars go.

    Raises:
        QreditError: the folder cannot be written.
    """
    from qredit.cli.lab_plots import plot_panels

    with progress.status(f"measuring {name}"), compute_on(1):
        finding = REGISTRY[name]()
    picture, points = folder / f"{name}.png", folder / f"{name}.csv"
    plot_panels(finding.panels, picture)
    write_points(finding, points)
    return finding, {"png": str(picture), "csv": str(points)}


def finding_to_dict(finding: "Finding") -> dict[str, Any]:
    """A finding as it is printed by --json: its tables and numbers by name, each claim, and the verdict."""
    tables = {name: [asdict(row) for row in rows] for name, rows in finding.tables.items()}
    claims = [
        {"claim": claim.text, "deviation": claim.deviation, "tolerance": claim.tolerance, "holds": claim.holds}
        for claim in finding.claims
    ]
    told = {"theorem": finding.theorem, "agrees": finding.agrees, "verdict": finding.verdict, "notes": finding.notes}
    return {**tables, **finding.numbers, "claims": claims, **told}


def write_points(finding: "Finding", path: Path) -> None:
    """Every point of the plot, one a line: panel, curve, kind, x and y with the axes' names."""
    with atomic_write(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("panel", "curve", "kind", "x", "y", "x_axis", "y_axis"))
        for panel in finding.panels:
            for curve in panel.curves:
                for x, y in zip(curve.x, curve.y, strict=True):
                    row = (panel.title, curve.label, curve.kind, f"{x:.6g}", f"{y:.6g}", panel.x, panel.y)
                    writer.writerow(row)


def show_finding(name: str, finding: "Finding", out: Console) -> None:
    """The theorem, its tables, what could not be measured, and the verdict.

    Args:
        name: of the theorem.
        finding: what was measured.
        out: where the result is shown.
    """
    out.print(f"[bold]{name}[/bold]: {escape(finding.theorem)}", soft_wrap=True)
    for title, rows in finding.tables.items():
        table = Table(title=title, title_justify="left")
        for field in fields(rows[0]):
            table.add_column(field.name, justify="left" if field.type in (str, "str") else "right")
        for row in rows:
            table.add_row(*map(format_cell, asdict(row).values()))
        out.print(table)
    for label, numbers in finding.numbers.items():
        out.print(
            f"{label}: {', '.join(f'{key} {format_cell(value)}' for key, value in numbers.items())}", soft_wrap=True
        )
    for note in finding.notes:
        out.print(escape(note), soft_wrap=True)
    out.print(f"[bold]{escape(finding.verdict)}[/bold]", soft_wrap=True)


def format_cell(value: Any) -> str:
    """A number with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
