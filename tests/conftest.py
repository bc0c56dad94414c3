"""Test-wide settings: shapes are checked at run time here, and only here."""

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from jaxtyping import install_import_hook

from tests.support import typecheck

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

# A shell that starts this in the background has SIGINT ignored, here and in what tests start: tests of Ctrl-C send it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
settings.register_profile("qredit", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("qredit")


def pytest_collection_finish() -> None:
    """Training runs collect garbage. What was imported is none; looking at it again takes a third of a second a run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    # Two threads on two busy cores wait for each other: every test behind one that left them on takes ten times as
    # long.
    assert torch.get_num_threads() == 1, "this test leaves torch with another number of threads"


@pytest.fixture(autouse=True)
def _few_questions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pocket tasks make 4096 training questions, which takes seconds; runs of a few steps need no more than 256."""
    if request.node.get_closest_marker("whole_tasks") is None:
        monkeypatch.setitem(SIZES, "train", 256)


@pytest.fixture(autouse=True)
def _heard() -> None:
    """Commands silence our log for their process, which here is shared with tests that listen to it."""
    logging.getLogger("qredit").setLevel(logging.NOTSET)
