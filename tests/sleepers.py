"""A job for worker processes that says which process runs it, then does nothing for long."""

import os
import time
from pathlib import Path


def sleep(options, folder: Path, held) -> dict:
    """Stands in for a run of a comparison."""
    (folder.parent / f"{os.getpid()}.pid").touch()
    time.sleep(600)
    return {}
