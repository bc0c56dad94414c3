"""From run folders to the file of a report."""

from collections.abc import Sequence
from pathlib import Path

from qredit.report.collect import collect_runs
from qredit.report.page import GENERATOR_TAG, render_page
from qredit.report.records import COMPARED_OBJECTIVES
from qredit.utils.atomic_files import write_text_atomic
from qredit.utils.errors import QreditError


def write_report(folders: Sequence[str | Path], path: Path, beside: Sequence[str] = ()) -> Path:
    """Write the page of these runs; an older report is replaced, whole.

    Args:
        folders: of the runs.
        path: the page.
        beside: further objectives to recompute in the credit viewer.

    Raises:
        QreditError: a folder that is no run, a file that is no report of ours, a place that cannot be written.
    """
    if path.is_dir():
        raise QreditError(f"{path} is a folder; give a file for the report")
    runs = collect_runs(folders)
    try:
        if path.exists() and GENERATOR_TAG not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise QreditError(f"{path} is no report of ours and is left alone; give another --output")
        text = render_page(runs, tuple(dict.fromkeys((*beside, *COMPARED_OBJECTIVES))))
    except OSError as error:
        raise QreditError(f"cannot write {path}: {error.strerror}") from None
    write_text_atomic(path, text)
    return path
