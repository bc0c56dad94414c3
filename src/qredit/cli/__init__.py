"""The command line: qredit demo | train | eval | objectives | tasks | lab | bench."""

from qredit.cli.main import main

__all__ = ["main"]
