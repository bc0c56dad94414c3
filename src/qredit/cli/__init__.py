"""The command line: qredit demo | train | eval | objectives | tasks."""

from qredit.cli.main import main

__all__ = ["main"]
