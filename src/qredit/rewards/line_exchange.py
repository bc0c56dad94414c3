"""A line to a process and a line back, within a time that always holds."""

import subprocess
import threading


def exchange_line(process: "subprocess.Popen[str]", line: str | None, seconds: float) -> str | None:
    """Write a line, if there is one, and read one; None where the process died or its time was up: it is then dead.

    Args:
        process: with text pipes to its input and output.
        line: without its end; None only reads.
        seconds: both together may take.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        if line is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        answer = process.stdout.readline()
    except OSError:
        answer = ""
    finally:
        timer.cancel()
        timer.join()
    return None if expired.is_set() or not answer.endswith("\n") else answer
