"""The command: measure into a folder, or write what was measured into docs/performance.md."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

BEGUN = time.monotonic()  # before the imports, which take part of the time
PAGE, MINUTES = Path("docs/performance.md"), 8.6


def parse(words: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m gpu_run", description=__doc__)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--out", type=Path, help="folder of results.json")
    asked.add_argument("--write", type=Path, metavar="RESULTS.json", help="a result whose tables go into the page")
    parser.add_argument("--toy", action="store_true", help="toy sizes on the CPU")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the whole run")
    parser.add_argument("--page", type=Path, default=PAGE, help="with markers <!-- gpu --> and <!-- /gpu -->")
    return parser.parse_args(words)


def run(out: Path, toy: bool, end: float) -> int:
    """Measure, print the tables, and say by the exit status whether all of it went well."""
    from gpu_run.versions import describe_machine

    facts = {"toy": toy, **describe_machine(toy)}  # before the imports below, which need what may be missing
    from rich.console import Console

    from gpu_run.plan import REAL, TOY
    from gpu_run.results import Results
    from gpu_run.sections import run_sections
    from gpu_run.tables import describe_run
    from qredit.runs.library_logging import silence_libraries

    silence_libraries()
    results = Results(out / "results.json", facts)
    run_sections(
        TOY if toy else REAL, results, end, lambda line: Console(stderr=True).print(line, markup=False, soft_wrap=True)
    )
    Console().print(describe_run(results.kept), markup=False, highlight=False, soft_wrap=True)
    found = results.kept["sections"].values()
    return int(any("error" in one or one.get("passed") is False for one in found))


def write(path: Path, page: Path) -> None:
    """Put the tables of a result into the page.

    Raises:
        QreditError: the file cannot be read, or holds a toy run.
    """
    from page import insert

    from gpu_run.tables import describe_run
    from qredit.utils.errors import QreditError

    try:
        results: dict[str, Any] = json.loads(path.read_text())
        toy = results["toy"]
    except (OSError, ValueError, KeyError) as error:
        raise QreditError(f"{path} holds no results: {type(error).__name__}: {error}") from None
    if toy:
        raise QreditError(f"{path} is of toy sizes, whose numbers mean nothing; nothing was written")
    insert(page, "gpu", f"Made by `make gpu` (experiments/gpu_run) on {describe_run(results)}")


def main(words: list[str] | None = None) -> int:
    """Returns the exit status: 1 where a check or a section failed, 2 where nothing could be begun."""
    from qredit.utils.errors import QreditError

    asked = parse(words)
    try:
        if asked.write is not None:
            write(asked.write, asked.page)
            return 0
        return run(asked.out, asked.toy, BEGUN + 60 * asked.minutes)
    except QreditError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
