"""Processes that end with the one that started them, whatever ended it: a pipe whose other end it alone holds."""

import os
import threading
from collections.abc import Callable
from typing import Any

ORPHAN_EXIT_CODE = 1


def exit_with_parent(wait: Callable[[], Any]) -> None:
    """End this process at once when `wait` returns or fails, which it does when the parent's end of a pipe is closed.

    The system closes it however the parent ends, also by a signal that no code of ours sees.

    Args:
        wait: reads from the pipe; nothing is ever written to it.
    """
    threading.Thread(target=_watch, args=(wait,), daemon=True, name="lifeline").start()


def _watch(wait: Callable[[], Any]) -> None:
    try:
        wait()
    except (EOFError, OSError):
        pass
    finally:
        os._exit(ORPHAN_EXIT_CODE)
