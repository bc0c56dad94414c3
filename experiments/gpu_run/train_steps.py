"""Whole steps of `train()`, optimiser and logging included, of ours and of TRL's."""

from collections.abc import Iterator, Mapping
from typing import Any

from step_cost import Clock
from transformers.trainer_callback import PrinterCallback

from gpu_run.pairs import GARL, TRL, release
from gpu_run.plan import Plan
from qredit.trl.bench.arms import make
from qredit.trl.bench.timing import text_of


def time_train_steps(plan: Plan, end: float) -> Iterator[Mapping[str, Any]]:
    """Seconds of the steps of each trainer but the first; `size` says of what."""
    seconds: dict[str, list[float]] = {}
    yield {"size": str(plan.train)}
    for name, objective in (GARL, TRL):
        arm, clock = make(name, text_of(objective, plan.train), plan.train, plan.shape, plan.setup()), Clock()
        arm.trainer.add_callback(clock)
        arm.trainer.remove_callback(PrinterCallback)
        arm.trainer.train()
        seconds[name] = clock.seconds[1:]
        yield {"seconds": dict(seconds)}
        del arm, clock
        release()
