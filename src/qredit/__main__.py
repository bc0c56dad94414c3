"""`python -m qredit`, for launchers that start modules (torchrun, accelerate)."""

from qredit.cli import main

raise SystemExit(main())
