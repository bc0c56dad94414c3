"""A job for worker processes that says which process runs it, then does nothing for long."""

import os
import time
from pathlib import Path


def sleep(folder: Path) -> None:
    """Stands in for a run of a comparison."""
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(600)
