"""The learning rate of a run, changed while it goes on."""

from typing import Any


def scale_learning_rate(optimizer: Any, scheduler: Any, factor: float) -> None:
    """Multiply the learning rate of this and all later steps, by the schedule as it stands now.

    Args:
        optimizer: of the run.
        scheduler: of the run; its base rates are changed.
        factor: what the rates are multiplied by.
    """
    inner = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    inner.base_lrs = [factor * rate for rate in inner.base_lrs]
    inner._last_lr = [factor * rate for rate in inner._last_lr]
    for group, rate in zip(optimizer.param_groups, inner._last_lr, strict=True):
        group["lr"] = rate
