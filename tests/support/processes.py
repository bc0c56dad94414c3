"""Waiting for processes that tests start, and for what they leave."""

import time

import psutil


def until(true, seconds=240.0):
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def running(pid):
    """Whether a process runs; one that has ended, but whose parent has not asked for its status, does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
