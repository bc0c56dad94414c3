"""A job for worker processes that says which process runs it, then does nothing for long."""

import os
import time
from pathlib import Path


def sleep(options, folder: Path, *more) -> dict:
    """Stands in for a run of a comparison; `more` is what else a run is given."""
    (folder.parent / f"{os.getpid()}.pid").touch()
    time.sleep(600)
    return {}
