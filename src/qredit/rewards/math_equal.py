"""A scorer for mathematics: math-verify in a process of its own, with a time limit that always holds.

math-verify's own limit is an alarm signal: off the main thread it fails, and a library that then switches it off can
hang on one expression. Here the expression is judged in a worker process, which is killed when its time is up.
"""

import atexit
import contextlib
import json
import logging
import reprlib
import subprocess
import sys
import threading
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

from qredit.rewards import final_answer
from qredit.rewards.answer_scorer import score_best
from qredit.rewards.characters import normalize_characters
from qredit.rewards.line_exchange import exchange_line
from qredit.rewards.math_comparison import is_same_answer
from qredit.rewards.math_parsing import (
    INFINITY,
    MINUS_INFINITY,
    Expression,
    PlainWords,
    Reading,
    iter_parts,
    normalize_words,
)
from qredit.utils.errors import QreditError
from qredit.utils.extras import require_extras

SECONDS = 5.0
START_SECONDS = 120.0

_log = logging.getLogger(__name__)


class Worker:
    """A process that answers yes-or-no questions, one line each; started at the first, replaced when it overruns.

    Any thread may ask; they take turns. A copy of this object in a forked process starts a process of its own.

    Args:
        command: what to run; it must write one line when it is ready, then one JSON boolean per line it reads.
        seconds: time limit for one question.
    """

    def __init__(self, command: Sequence[str], seconds: float = SECONDS) -> None:
        self.command = tuple(command)
        self.seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, operation: str, *arguments: str) -> bool:
        """The answer; False, with a warning, where the process died or did not answer in time.

        Raises:
            QreditError: the process does not start.
        """
        with self._lock:
            try:
                answer = exchange_line(self._running(), json.dumps([operation, *arguments]), self.seconds)
            except BaseException:
                self._discard()  # its line may still come, and would be taken for the next answer
                raise
            if answer is None:
                self._discard()
                question = operation + reprlib.repr(arguments)
                _log.warning("no answer (limit %g s), taken as false: %s", self.seconds, question)
            return answer is not None and bool(json.loads(answer))

    def close(self) -> None:
        """End the process, if there is one. The next question starts another."""
        with self._lock:
            self._discard()

    def _running(self) -> subprocess.Popen[str]:
        # In a forked process, poll() finds that the parent's worker is no child of this one, and reports it ended.
        if self._process is None or self._process.poll() is not None:
            self._discard()
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
            if exchange_line(self._process, None, START_SECONDS) is None:
                raise QreditError(f"the worker process did not start: {' '.join(self.command)}")
        return self._process

    def _discard(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError), process:
                process.kill()


# By path and without the folder on the import path (-P): importing qredit would load torch into the worker.
COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("math_worker.py")))
_MATH = Worker(COMMAND)
atexit.register(_MATH.close)


def math_equal(prediction: str, golds: Sequence[str]) -> float:
    """1 where the prediction says the same mathematical answer as a gold.

    The gold is read first (`math_reading`): a quantity, list, set, tuple, interval, matrix, equation, formula or plain
    words. The prediction is read in the same way, after what it says last (`final_answer`). Numbers are compared
    exactly, formulas by math-verify and SymPy. A formula that takes longer than `SECONDS` is wrong, and so is a text
    that cannot be read. Works from any thread.

    Raises:
        MissingExtra: a formula is to be judged, and the extra `math` is not installed.
    """
    return score_best(_agree, prediction, golds)


def is_math(gold: str) -> bool:
    """True where `gold` can be read: see `math_equal`. Formulas are tried by math-verify, within the time limit."""
    reading = final_answer.parse_gold(gold)
    return reading is not None and _is_readable(reading)


def normalize_math(prediction: str) -> Hashable:
    """What a prediction says, for a vote: equal for answers that are equal as read, before any algebra."""
    return final_answer.parse_answer(prediction) or PlainWords(normalize_words(normalize_characters(prediction)))


def are_same_math(one: Hashable, other: Hashable) -> bool:
    """Whether two normal forms are one answer: formulas are compared by math-verify and SymPy."""
    return is_same_answer(cast(Reading, one), cast(Reading, other), _algebra)


def _agree(prediction: str, gold: str) -> bool:
    wanted = final_answer.parse_gold(gold)
    if isinstance(wanted, PlainWords) and wanted.text in final_answer.list_candidate_words(prediction):
        return True
    said = final_answer.parse_answer(prediction) if wanted is not None else None
    if said is None or wanted is None:
        return False
    # Equal as they are written: no algebra but to see whether it could read them.
    return _is_readable(wanted) if said == wanted else is_same_answer(said, wanted, _algebra)


def _is_readable(reading: Reading) -> bool:
    if isinstance(reading, Expression) and reading not in (INFINITY, MINUS_INFINITY):
        return _parses(reading.latex)
    return all(map(_is_readable, iter_parts(reading)))


@lru_cache(maxsize=4096)
def _algebra(said: str, wanted: str) -> bool:
    require_extras("math_equal", "math")
    return _MATH.ask("equal", said, wanted)


@lru_cache(maxsize=4096)
def _parses(latex: str) -> bool:
    require_extras("math_equal", "math")
    return _MATH.ask("parses", latex)
