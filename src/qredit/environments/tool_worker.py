"""A process that runs tools, with a time limit that always holds: a call that takes longer ends the process."""

import asyncio
import contextlib
import inspect
import json
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import Any

from qredit.utils.errors import QreditError
from qredit.utils.parent_process import exit_with_parent

SECONDS = 10.0
MOST_CHARACTERS = 100_000
_START_SECONDS = 60.0
_MOST_BYTES = 16 * MOST_CHARACTERS
_READY = b"ready"


class ToolFault(StrEnum):
    """Why a call gave no result."""

    ERROR = "error"
    TIMEOUT = "timeout"
    DIED = "died"


@dataclass(frozen=True)
class ToolResult:
    """What a call gave: a text, cut at `MOST_CHARACTERS`, or a fault with what is to be said of it."""

    text: str
    fault: ToolFault | None = None


class ToolWorker:
    """Runs functions in a process of its own, started at the first call and replaced when it overruns or dies.

    One process serves all episodes, so what a tool keeps in its module is seen by every episode that calls it. Any
    thread may call. They take turns.

    Args:
        functions: by name.
        seconds: the most that one call may take.

    Raises:
        QreditError: a time limit that is not positive.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]], seconds: float = SECONDS) -> None:
        if not seconds > 0:
            raise QreditError(f"tool_seconds must be more than 0, got {seconds}")
        self.functions, self.seconds = dict(functions), seconds
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None
        self._lifeline: Connection | None = None
        self._owner = os.getpid()

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """The result of a function, or why there is none.

        Raises:
            QreditError: the process does not start.
        """
        with self._lock:
            try:
                answer = self._exchange(json.dumps([name, dict(arguments)], default=str).encode())
            except BaseException:
                self._discard()  # its answer may still come, and would be taken for the next call's
                raise
        return answer

    def close(self) -> None:
        """End the process, if there is one. The next call starts another."""
        with self._lock:
            self._discard()

    def _exchange(self, request: bytes) -> ToolResult:
        connection = self._running()
        try:
            connection.send_bytes(request)
            if not connection.poll(self.seconds):
                self._discard()
                return ToolResult(f"no result within {self.seconds:g} seconds", ToolFault.TIMEOUT)
            # JSON and not a pickle: what a tool wrote is never unpickled here
            text, failed = json.loads(connection.recv_bytes(_MOST_BYTES))
        except (EOFError, OSError):
            self._discard()
            return ToolResult("the process of the tool ended", ToolFault.DIED)
        return ToolResult(str(text), ToolFault.ERROR if failed else None)

    def _running(self) -> Connection:
        if self._owner != os.getpid():  # a copy in a forked process: the worker is the parent's
            self._process, self._connection, self._lifeline, self._owner = None, None, None, os.getpid()
        if self._process is None or not self._process.is_alive():
            self._discard()
            self._start()
        assert self._connection is not None
        return self._connection

    def _start(self) -> None:
        # fork takes any function, also one of a script or a notebook; elsewhere it must be importable
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        watched, lifeline = context.Pipe(duplex=False)
        inherited = (ours, lifeline) if method == "fork" else ()
        process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, watched, inherited, self.functions), daemon=True, name="tools"
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of threads: the child runs nothing but the tools
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
            process.start()
        theirs.close()
        watched.close()
        self._process, self._connection, self._lifeline = process, ours, lifeline
        try:
            ready = ours.poll(_START_SECONDS) and ours.recv_bytes() == _READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            self._discard()
            raise QreditError("the process that runs the tools did not start")

    def _discard(self) -> None:
        process, self._process = self._process, None
        for end in (self._connection, self._lifeline):
            if end is not None:
                end.close()
        self._connection = self._lifeline = None
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # with what the tool itself started
            process.kill()
            process.join()


def _serve(
    requests: Connection, watched: Connection, inherited: tuple[Connection, ...], functions: Mapping[str, Any]
) -> None:
    """Answer calls until the other end is closed.

    Args:
        requests: calls come in here, results go out.
        watched: nothing is written to it; it is closed when the parent ends.
        inherited: ends that are the parent's alone; open here, they would hide that it ended.
        functions: by name.
    """
    for end in inherited:
        end.close()
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    exit_with_parent(watched.recv_bytes)
    # What a tool prints is nobody's result, and may hold whatever it found.
    sys.stdin, sys.stdout = open(os.devnull), open(os.devnull, "w")  # noqa: SIM115  # open as long as the process
    sys.stderr = sys.stdout
    requests.send_bytes(_READY)
    with contextlib.suppress(EOFError, OSError):
        while True:
            name, arguments = json.loads(requests.recv_bytes())
            requests.send_bytes(json.dumps(_run(functions[name], arguments)).encode())


def _run(function: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[str, bool]:
    """The result as text, and whether the function failed."""
    try:
        result = function(**arguments)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return _as_text(result), False
    except BaseException as error:  # SystemExit, too: a tool ends its call and not the process
        return _as_text(f"{type(error).__name__}: {error}"), True


def _as_text(result: Any) -> str:
    text = result if isinstance(result, str) else ""
    if not isinstance(result, str):
        try:
            text = json.dumps(result, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            text = str(result)
    return text[: MOST_CHARACTERS + 1].encode(errors="replace").decode()
