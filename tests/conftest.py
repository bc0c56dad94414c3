"""Test-wide settings: shapes are checked at run time here, and only here."""

import functools
import gc
import importlib.metadata
import logging
import os
import signal
import sys
import threading
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in processes that tests start, too: workers share the cores

from jaxtyping import install_import_hook

from tests.support import typecheck
from tests.support.endpoint import serve  # noqa: F401  # a fixture
from tests.support.imports import ENGINES, needs_engine

# core/batch.py and core/chain.py are left out: they check what they are given, and the tests look at their messages.
_CHECKED = (
    *("core.objective", "core.penalty", "core.reduce", "core.surrogate", "core.tsallis"),
    *("credit", "lab", "penalties", "stats.groups", "stats.masked", "stats.segment", "testing"),
)
install_import_hook([f"qredit.{name}" for name in _CHECKED], f"{typecheck.__name__}.tower")

import pytest
import torch
from hypothesis import settings

from qredit.tasks.pocket.scene import SIZES

gc.set_threshold(50_000, 20, 100)  # libraries make many objects, and few are garbage

# A shell that starts this in the background has SIGINT ignored, here and in what tests start: tests of Ctrl-C send it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
# accelerate asks a dozen times a run whether peft is installed, and parses its metadata each time.
importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)
LOADED: set[str] = set()
ALL_QUESTIONS = dict(SIZES)
# Pocket tasks make 4096 training questions, which takes seconds; runs of a few steps need no more than 256. A held-out
# question takes four times as long: of eight drawn scenes one belongs to its split.
FEW_QUESTIONS = {"train": 256, "validation": 64, "test": 128}
COSTLY = 2.0
"""CPU seconds above which a test of make test is named at the end, that somebody may make it cheaper or mark it e2e."""
BEGAN = pytest.StashKey[float]()
settings.register_profile("qredit", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("qredit")


def cpu_seconds() -> float:
    """Those of this process and of the processes that it waited for."""
    return sum(os.times()[:4])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="no file that needs an engine, nothing marked engine or slow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if config.getoption("--fast") and is_test and needs_engine(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--fast"):
        left_out = [item for item in items if item.get_closest_marker("engine") or item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish() -> None:
    """Training runs collect garbage. What was imported is none; looking at it again takes a third of a second a run."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of a test, those of its module too: nothing that a test before it set is left.

    Commands silence our log for their process, which here is shared with tests that listen to it.
    """
    item.stash[BEGAN] = cpu_seconds()
    torch.default_generator.manual_seed(0)  # torch.manual_seed writes down the stack each time, for CUDA to show later
    torch.set_num_threads(1)
    logging.getLogger("qredit").setLevel(logging.NOTSET)
    SIZES.update(ALL_QUESTIONS if item.get_closest_marker("whole_tasks") else FEW_QUESTIONS)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """What a test took is reported with it. Under --fast none loads an engine, in whatever way it imports."""
    item.user_properties.append(("cpu_seconds", cpu_seconds() - item.stash[BEGAN]))
    if item.config.getoption("--fast"):
        found = ENGINES & sys.modules.keys() - LOADED
        LOADED.update(found)
        assert not found, f"it loads {', '.join(found)}: mark it engine"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Costly tests that no marker excuses. It is said and never a failure: seconds are those of one machine."""
    ended = [report for report in terminalreporter.getreports("") if report.when == "teardown"]
    found = sorted(
        (seconds, report.nodeid)
        for report in ended
        if not {"e2e", "long", "slow"} & report.keywords.keys()
        for name, seconds in report.user_properties
        if name == "cpu_seconds" and seconds > COSTLY
    )
    if found:
        terminalreporter.section(f"more than {COSTLY:g} CPU seconds, and marked neither slow nor e2e")
        for seconds, name in reversed(found):
            terminalreporter.write_line(f"{seconds:6.1f}  {name}")
