"""The command line: qredit demo | train | probe | eval | compare | report | objectives | tasks | lab | bench."""

from qredit.cli.main import main

__all__ = ["main"]
