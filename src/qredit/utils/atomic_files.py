"""Files that are whole or not there, and the one clear line where a place cannot be written."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qredit.utils.errors import QreditError

# How torch and safetensors say that a write failed: as errors of their own, the system's reason in the text or nowhere.
_WRITE_FAILURES = ("PytorchStreamWriter failed", "unexpected pos", "I/O error", "IoError(Os {")


DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What the system says of a disk that takes no more."""


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for the disk's sake, by the system's number or, from libraries in Rust, by its text."""
    of_rust = any(f"(os error {number})" in str(error) for number in DISK_FULL_ERRNOS)
    return of_rust or (isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS)


@contextmanager
def report_write_errors(path: Path) -> Iterator[None]:
    """Say in one line that `path` cannot be written, where writing it fails: no space, no right, no such folder.

    Raises:
        QreditError: names the path and the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise QreditError(f"cannot write {path}: {error.strerror or error}") from None
    except Exception as error:
        if not any(words in str(error) for words in _WRITE_FAILURES):
            raise
        raise QreditError(f"cannot write {path}: {str(error).splitlines()[0]}") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A file beside `path` to be written; it takes the place of `path` when all of it is on the disk, else it goes.

    Its name ends as that of `path` does, for writers that choose a format by it.

    Raises:
        QreditError: it cannot be written; what stood at `path` is as it was.
    """
    aside = path.with_name(f".writing-{path.name}")
    with report_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file, whole; see `atomic_write`."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Append lines to a file; what reads it must leave out a last line that was cut off.

    Raises:
        QreditError: it cannot be written.
    """
    with report_write_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def check_new_file(file: Path, what: str, flag: str = "--output") -> None:
    """Refuse a file that is there already, or has no place to be, before anything is computed.

    Args:
        file: that a command will write.
        what: it will hold, in words.
        flag: that names it.

    Raises:
        QreditError: says which of the two it is.
    """
    if file.exists():
        raise QreditError(f"{file} exists already; give another {flag}")
    if not file.absolute().parent.is_dir():
        raise QreditError(f"no folder {file.absolute().parent} for {what}")
