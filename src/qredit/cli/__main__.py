"""`python -m qredit.cli`, the same as `python -m qredit`."""

from qredit.cli import main

raise SystemExit(main())
