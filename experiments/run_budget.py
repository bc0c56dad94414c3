"""The flags --minutes and --write of experiments that go on where they were stopped, on one thread."""

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from rich.console import Console

from qredit.runs.library_logging import silence_libraries
from qredit.runs.parallel import WORKERS

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class RunBudget:
    """How long an experiment may begin runs.

    Attributes:
        minutes: no run is begun after so many.
        write: none is begun at all.
        start: when it began, on the clock of `time.perf_counter`, which all processes of a machine share.
    """

    minutes: float
    write: bool
    start: float

    @property
    def is_spent(self) -> bool:
        """Whether no further run is begun."""
        return self.write or time.perf_counter() - self.start > 60 * self.minutes


def parse_budget(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, RunBudget]:
    """What was asked, and for how long runs may begin from now on; sets this process to quiet libraries and one thread.

    Args:
        parser: with the experiment's other flags.
    """
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--write", action="store_true", help="write what is there, train nothing")
    asked = parser.parse_args()
    silence_libraries()
    torch.set_num_threads(1)
    return asked, RunBudget(asked.minutes, asked.write, time.perf_counter())


def parse_workers(description: str | None) -> tuple[int, RunBudget]:
    """How many runs at once, and the budget, which their processes read, too.

    Each has one thread: results depend on it to rounding, and two at once are faster than one on two threads.

    Args:
        description: what `--help` says.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workers", type=int, default=WORKERS, help="runs at once, of one thread each")
    asked, budget = parse_budget(parser)
    return asked.workers, budget


def parse_gsm8k(description: str | None) -> tuple[str | None, RunBudget]:
    """The folder of GSM8K's official files, None where nothing is run, and the budget.

    Args:
        description: what `--help` says.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", help="folder with the official train.jsonl and test.jsonl of GSM8K")
    asked, budget = parse_budget(parser)
    if not asked.write and asked.data is None:
        parser.error("give --data FOLDER, or --write")
    return None if asked.write else asked.data, budget


def run_jobs(
    jobs: Iterable[J], run: Callable[[J], R | None], tell: Callable[[J, R], str], console: Console
) -> dict[J, R]:
    """The results that are there, one job after the other, each told when it is there.

    Args:
        jobs: in the order in which they are run.
        run: the result of one; None where it is not there and none is to be made.
        tell: a line about it.
        console: where the lines go.
    """
    found = {}
    for job in jobs:
        result = run(job)
        if result is not None:
            found[job] = result
            console.print(tell(job, result))
    return found
