"""The flags --minutes and --write of experiments that go on where they were stopped, on one thread."""

import argparse
import time
from dataclasses import dataclass

import torch

from qredit.runs.library_logging import silence_libraries


@dataclass(frozen=True)
class RunBudget:
    """How long an experiment may begin runs.

    Attributes:
        minutes: no run is begun after so many.
        write: none is begun at all.
        start: when it began, on the clock of `time.perf_counter`.
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
