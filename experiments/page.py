"""Measured parts of a page: what stands between two markers is written by a script."""

import os
import platform
import re
from pathlib import Path

import torch

RUNS, KEPT = Path("runs/results"), Path("experiments/kept")


def kept(folder: Path) -> Path:
    """Where the small result of a run in `runs/results` is kept under version control."""
    return KEPT / folder.relative_to(RUNS).with_name(f"{folder.name}.json")


def insert(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of that name in a page: <!-- name --> and <!-- /name -->."""
    before, after = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    pattern = re.compile(re.escape(before) + ".*?" + re.escape(after), re.DOTALL)
    whole, count = pattern.subn(lambda _: before + text + after, page.read_text())
    assert count == 1, f"{page} has no place for {name}"
    page.write_text(whole)


def machine_line() -> str:
    """What the runs of a page were made on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, one thread for each run"
