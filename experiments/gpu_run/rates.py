"""The peak of this card as a large square product reaches it, in bf16, in float32 and in TF32."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from gpu_run.plan import Plan
from qredit.trl.bench.timing import matmul_rate


def measure_rates(plan: Plan, end: float) -> Iterator[Mapping[str, Any]]:
    """Floating-point operations per second; shares of the peak elsewhere are of the rate in bf16."""
    half = plan.setup()
    full = replace(half, half=False)
    yield {"size": plan.matmul, "bf16": matmul_rate(half, plan.matmul), "float32": matmul_rate(full, plan.matmul)}
    torch.set_float32_matmul_precision("high")
    try:
        yield {"tf32": matmul_rate(full, plan.matmul)}
    finally:
        torch.set_float32_matmul_precision("highest")
