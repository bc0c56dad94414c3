"""The measured numbers and curves of docs/theory.md: `make theory`, about a minute."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from page import insert
from rich.console import Console

from qredit.cli.lab_command import format_cell, measure_and_plot
from qredit.lab import REGISTRY
from qredit.lab.finding import Finding

PAGE, FOLDER = Path("docs/theory.md"), Path("docs/theory")


def table(rows: Sequence[Any]) -> str:
    """Rows of one dataclass as a table in Markdown."""
    names = [field.name.replace("_", " ") for field in fields(rows[0])]
    lines = [names, ["---"] * len(names), *(map(format_cell, asdict(row).values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def section(name: str, finding: Finding) -> str:
    """The verdict, the curve, the tables and what could not be measured."""
    numbers = [
        f"{key}: {', '.join(f'{n} {format_cell(v)}' for n, v in row.items())}" for key, row in finding.numbers.items()
    ]
    told = "".join(f"- {line}\n" for line in (*numbers, *finding.notes))
    tables = "\n".join(table(rows) for rows in finding.tables.values())
    picture = f"![{finding.theorem}](theory/{name}.png)"
    claims = "\n".join(f"- {claim}" for claim in finding.claims)
    return f"`qredit lab {name}`: {finding.headline}:\n\n{claims}\n\n{picture}\n\n{tables}\n{told}"


def main() -> None:
    """Measure every theorem; write pictures, points and the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name in REGISTRY:
        finding, _ = measure_and_plot(name, FOLDER, Console(stderr=True))
        insert(PAGE, name, section(name, finding))


if __name__ == "__main__":
    main()
