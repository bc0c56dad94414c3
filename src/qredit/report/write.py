"""From run folders to the file of a report."""

from collections.abc import Sequence
from pathlib import Path

from qredit.report.checklist import Item
from qredit.report.collect import RunData, collect_runs
from qredit.report.page import GENERATOR_TAG, render_page
from qredit.report.records import COMPARED_OBJECTIVES
from qredit.utils.atomic_files import write_text_atomic
from qredit.utils.errors import QreditError


def write_report(folders: Sequence[str | Path], path: Path, beside: Sequence[str] = ()) -> Path:
    """Write the page of the runs in these folders; an older report is replaced, whole.

    Args:
        folders: of the runs.
        path: the page.
        beside: further objectives to recompute in the credit viewer.

    Raises:
        QreditError: a folder that is no run, a file that is no report of ours, a place that cannot be written.
    """
    return write_page(collect_runs(folders), path, beside)


def write_page(runs: Sequence[RunData], path: Path, beside: Sequence[str] = (), checklist: Sequence[Item] = ()) -> Path:
    """Write the page of runs that were read; an older report is replaced, whole.

    Args:
        runs: what is shown.
        path: the page.
        beside: further objectives to recompute in the credit viewer.
        checklist: items of the reporting checklist; without any the page has no such section.

    Raises:
        QreditError: a file that is no report of ours, a place that cannot be written.
    """
    if path.is_dir():
        raise QreditError(f"{path} is a folder; give a file for the report")
    try:
        if path.exists() and GENERATOR_TAG not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise QreditError(f"{path} is no report of ours and is left alone; give another --output")
        text = render_page(runs, tuple(dict.fromkeys((*beside, *COMPARED_OBJECTIVES))), checklist)
    except OSError as error:
        raise QreditError(f"cannot write {path}: {error.strerror}") from None
    write_text_atomic(path, text)
    return path
