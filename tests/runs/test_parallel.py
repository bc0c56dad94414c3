"""Runs side by side: what a run held is gone before the next one begins."""

import gc
import weakref
from functools import partial

import pytest
from rich.console import Console

from qredit.runs.parallel import run_parallel

_held: list["weakref.ref[Cycle]"] = []


class Cycle:
    """What only a collection frees, as a trainer and its model do."""

    def __init__(self) -> None:
        self.itself = self


def hold_a_cycle() -> bool:
    """Leave a cycle behind, as a run does."""
    gc.disable()
    _held.append(weakref.ref(Cycle()))
    return True


def is_gone() -> bool:
    """Whether that of the job before is gone."""
    return _held[0]() is None


@pytest.mark.e2e
def test_a_job_leaves_no_garbage_to_the_next():
    jobs = [partial(hold_a_cycle), partial(is_gone)]

    assert run_parallel("jobs", jobs, Console(quiet=True), workers=1) == [True, True]
