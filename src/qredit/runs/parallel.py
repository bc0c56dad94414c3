"""Runs of an experiment side by side, one thread each: results do not depend on how many run at once."""

import gc
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import Connection
from typing import TypeVar

from rich.console import Console

from qredit.runs.library_logging import silence_libraries
from qredit.runs.progress_bars import make_progress_bars
from qredit.utils.parent_process import exit_with_parent

T = TypeVar("T")
WORKERS = 2


def run_parallel(
    title: str, jobs: Sequence[Callable[[], T]], console: Console, workers: int = WORKERS, threads: int = 1
) -> list[T]:
    """The results of the jobs, in their order, under a bar. A job is picklable: a partial of a module's function.

    The processes that run them end with this one, whatever ends it.

    Args:
        title: heading.
        jobs: without arguments.
        console: where progress is shown.
        workers: processes at once.
        threads: of each process; results depend on it to rounding.
    """
    spawn = multiprocessing.get_context("spawn")
    lifeline, held = spawn.Pipe(duplex=False)  # `held` stays in this process: spawned ones get what they are given
    with (
        held,
        lifeline,
        ProcessPoolExecutor(workers, spawn, initializer=_prepare, initargs=(lifeline, threads)) as pool,
        make_progress_bars(console) as bars,
    ):
        bar = bars.add_task(title, total=len(jobs), note="")
        try:
            running = [pool.submit(_run_and_collect, job) for job in jobs]
            for _ in as_completed(running):
                bars.advance(bar)
            return [job.result() for job in running]
        except KeyboardInterrupt:
            for worker in multiprocessing.active_children():  # they would first end the runs that they are at
                worker.terminate()
            raise
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run_and_collect(job: Callable[[], T]) -> T:
    """The job's result. A trainer and its model hold each other: uncollected, they would lie beside the next ones."""
    try:
        return job()
    finally:
        gc.collect()


def _prepare(lifeline: Connection, threads: int) -> None:
    import torch  # of the workers; who starts them may do without

    exit_with_parent(lifeline.recv_bytes)
    torch.set_num_threads(threads)
    silence_libraries()
