"""SIGTERM as an orderly stop: what is open is closed as on Ctrl-C, and the exit status says which of the two it was."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


@dataclass
class StopState:
    """How a command was stopped, if it was.

    Attributes:
        terminated: whether SIGTERM came.
    """

    terminated: bool = False

    @property
    def word(self) -> str:
        """How it is told."""
        return "terminated" if self.terminated else "interrupted"

    @property
    def status(self) -> int:
        """The exit status of a command that was stopped."""
        return TERMINATED if self.terminated else INTERRUPTED


@contextlib.contextmanager
def interrupt_on_sigterm() -> Iterator[StopState]:
    """While it lasts, the first SIGTERM raises KeyboardInterrupt, and a second ends the process at once.

    Left alone where someone else handles the signal or ignores it, and outside the main thread, where none can be set.
    """
    stopped = StopState()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield stopped
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
