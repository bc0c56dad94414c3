"""Programs run where they can do no harm: in namespaces of their own, with hard limits, and never without them."""

import atexit
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qredit.rewards.line_exchange import exchange_line
from qredit.utils.errors import QreditError

_START_SECONDS = 60.0
# By path, isolated (-I), without site-packages (-S), and in an empty environment: nothing of this process is seen.
_COMMAND = (sys.executable, "-I", "-S", "-B", str(Path(__file__).with_name("sandbox_worker.py")))
_HOSTILE = """
import os
def refused(call):
    try:
        call()
    except (OSError, RuntimeError):
        return True
    return False
import socket
import threading
found = [
    refused(os.fork), refused(threading.Thread(target=print).start), refused(socket.socket),
    refused(lambda: os.execv("/bin/sh", ["sh"])), refused(lambda: open("/x", "w")), refused(lambda: os.listdir("/etc")),
    not os.environ, not os.path.exists("/proc/self"),
]
"""
_CHECKS = (
    "processes",
    "threads",
    "sockets",
    "other programs",
    "files",
    "the system's files",
    "the environment",
    "/proc",
)


@dataclass(frozen=True)
class SandboxLimits:
    """What one run of a program may take.

    Attributes:
        seconds: by the clock.
        memory: bytes of address space.
        file: bytes of the largest file.
        disk: bytes of all files, which lie in memory.
        characters: of what it writes.
    """

    seconds: int = 4
    memory: int = 512 * 2**20
    file: int = 2**20
    disk: int = 4 * 2**20
    characters: int = 2**16


class Sandbox:
    """Runs programs in a process that is started at the first of them, and replaced when it dies.

    A program is Python. It may start no process and no thread, open no socket, run no other program and trace none. It
    sees Python's library, and a folder /tmp that is new for each run. Its environment is empty. See `sandbox_worker`.
    It is Linux's namespaces and its filter of calls that hold this, so other systems have no sandbox.

    Any thread may ask; they take turns.

    Args:
        limits: of each run.
    """

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self.limits = limits or SandboxLimits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def run(self, code: str, tests: Sequence[Mapping[str, str]]) -> list[str | None]:
        """What a program wrote or a value, for each test; None where it failed or was stopped.

        Args:
            code: the program.
            tests: each {"stdin": what it reads} or {"value": an expression behind it}. Values are told as the worker's
                `encode` does.

        Raises:
            QreditError: the sandbox cannot be had. Nothing was run then.
        """
        with self._lock:
            try:
                answer = self._ask(code, tests)
            except BaseException:
                self._discard()
                raise
            if answer is None:
                self._discard()
                return [None] * len(tests)
            return answer

    def check(self) -> None:
        """Refuse to go on without a sandbox that holds.

        Raises:
            QreditError: it cannot be had here, or a program could do what it must not.
        """
        with self._lock:
            self._running()

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._discard()

    def _ask(self, code: str, tests: Sequence[Mapping[str, str]]) -> list[str | None] | None:
        line = json.dumps({"code": code.encode(errors="replace").decode(), "tests": list(tests)})
        answer = exchange_line(self._running(), line, (self.limits.seconds + 2) * (len(tests) + 1))
        try:
            found = None if answer is None else json.loads(answer)
        except ValueError:  # it says why it ended
            return None
        return found if isinstance(found, list) and len(found) == len(tests) else None

    def _running(self) -> "subprocess.Popen[str]":
        # In a forked process, poll() finds that the parent's worker is no child of this one, and reports it ended.
        if self._process is None or self._process.poll() is not None:
            self._discard()
            try:
                self._start()
            except BaseException:
                self._discard()
                raise
        assert self._process is not None
        return self._process

    def _start(self) -> None:
        if sys.platform != "linux":
            raise QreditError("programs are run in a sandbox, which only Linux has; no program is run without it")
        self._process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={},
            cwd="/",
            start_new_session=True,
        )
        said = exchange_line(self._process, json.dumps(asdict(self.limits)), _START_SECONDS)
        if said != "ready\n":
            why = "it ended at once" if said is None else said.removeprefix("refused ").strip()
            raise QreditError(f"the sandbox for programs cannot be had here ({why}); no program is run without it")
        found = self._ask(_HOSTILE, [{"value": "found"}])
        held = json.dumps(["list", [["bool", "True"]] * len(_CHECKS)])
        if found != [held]:
            raise QreditError(
                f"the sandbox for programs does not hold here ({_list_open(found)}); no program is run without it"
            )

    def _discard(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError), process:
                process.kill()  # what it started dies with it


def _list_open(found: Sequence[str | None] | None) -> str:
    """What a program could do that tried what it must not; all of it where it said something else than it should."""
    try:
        told = json.loads((found or [None])[0] or "")[1]
        return ", ".join(name for name, one in zip(_CHECKS, told, strict=True) if one != ["bool", "True"])
    except (ValueError, TypeError, IndexError):
        return "a program that tries it says nothing that can be read"


SANDBOX = Sandbox()
"""That of this process."""
atexit.register(SANDBOX.close)
