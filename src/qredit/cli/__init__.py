"""The command line: `qredit COMMAND`, one file per command; `main.py` lists them."""

import sys

try:
    from qredit.cli.main import main
except KeyboardInterrupt:  # pressed while it is imported, before `main` could answer it
    print("qredit: interrupted", file=sys.stderr)  # noqa: T201
    raise SystemExit(130) from None

__all__ = ["main"]
