"""The command line: qredit demo | train | sft | probe | eval | compare | report | objectives | tasks | lab | bench."""

import sys

try:
    from qredit.cli.main import main
except KeyboardInterrupt:  # pressed while it is imported, before `main` could answer it
    print("qredit: interrupted", file=sys.stderr)  # noqa: T201
    raise SystemExit(130) from None

__all__ = ["main"]
