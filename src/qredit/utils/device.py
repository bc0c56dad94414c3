"""Which device is used when none is asked for."""

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def select_device(cpu: bool = False) -> "torch.device":
    """The accelerator, or the CPU where there is none, it is not wanted, or it lacks float64, as Apple's does."""
    import torch  # here, for options that are only shown ask for no device

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() and not cpu else None
    return found if found is not None and found.type != "mps" else torch.device("cpu")


def autocast(device: "torch.device", enabled: bool) -> AbstractContextManager[object]:
    """bf16 computation on float32 weights, where it is wanted."""
    import torch

    return torch.autocast(device.type, torch.bfloat16) if enabled else contextlib.nullcontext()
