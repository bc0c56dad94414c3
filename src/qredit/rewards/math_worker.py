"""The process that runs math-verify for `qredit.rewards.math_equal`. Run by path; imports nothing of qredit.

Reads one JSON list per line, [operation, argument, …], and answers each with one JSON boolean.
"""

import faulthandler
import json
import logging
import os
import queue
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

# If the trainer dies while a request runs, nobody is left to kill this process. The thread that reads ends it, unless
# one long operation of Python's integers keeps every thread of it from running.
_ORPHANED_SECONDS = 60.0
_DELIMITED = re.compile(r"\$|\\boxed|\\\(|\\\[")
_COMMAND = re.compile(r"\\(?:text|mathrm|operatorname)\s*\{[^}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")


def equal(prediction: str, gold: str) -> bool:
    """True where math-verify finds that the two stand for the same mathematical object."""
    wanted = expressions(gold)
    return bool(wanted) and bool(verify(wanted, expressions(prediction), timeout_seconds=None))


def parses(gold: str) -> bool:
    """True where math-verify reads an expression in `gold`."""
    return bool(expressions(gold))


@lru_cache(maxsize=1024)
def expressions(text: str) -> Sequence[Any]:
    """The expressions math-verify reads in `text`, without its fall-back to plain strings.

    It looks for LaTeX between delimiters only, and would read the bare "2^{10}" as 2. So a text with neither
    delimiters nor words is first read as one boxed expression.
    """
    bare = not _DELIMITED.search(text) and not _WORD.search(_COMMAND.sub("", text))
    boxed = _parse(f"\\boxed{{{text.strip()}}}") if bare else []
    return boxed or _parse(text)


def _parse(text: str) -> list[Any]:
    # Its own time limits are alarm signals, for a main thread only. Here the caller ends the process instead.
    return list(parse(text, parsing_timeout=None, fallback_mode="no_fallback"))


OPERATIONS: Mapping[str, Callable[..., bool]] = {"equal": equal, "parses": parses}


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.WARNING)
    answers, sys.stdout = sys.stdout, sys.stderr
    equal("1", "$1$")  # loads the parsers before the first request is timed
    with open(os.devnull, "w") as nowhere:
        print("ready", file=answers, flush=True)
        for line in iter(_lines().get, None):
            faulthandler.dump_traceback_later(_ORPHANED_SECONDS, exit=True, file=nowhere)
            operation, *arguments = json.loads(line)
            try:
                answer = OPERATIONS[operation](*arguments)
            except Exception:  # whatever math-verify cannot digest is not equal
                answer = False
            print(json.dumps(answer), file=answers, flush=True)
            faulthandler.cancel_dump_traceback_later()


def _lines() -> "queue.SimpleQueue[str]":
    """The lines of the input as they come, read by a thread that ends this process when the input ends."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


if __name__ == "__main__":
    main()
