"""Gradients with a shared prompt against those of ordinary rows, in float32 and in bf16.

    float32: ‖g_shared - g‖ ≤ 1e-3·‖g‖
    bf16:    ‖b_shared - g‖ ≤ 1.5·‖b - g‖

g is the gradient of the sum of all log-probabilities on ordinary rows in float32, b the same in bf16. A wrong mask or
position changes g by a share of its own size. Float32 sums in another order do not come near 1e-3, which leaves room
for kernels that compute in TF32. In bf16, of 8 bits, both are off by much more, so what is asked is that sharing adds
nothing to the rounding of ordinary rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpu_run.plan import Plan
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.packing import pack, pad_rows
from qredit.shared_prefix.share import share_prefix
from qredit.shared_prefix.verify import logp_gradients
from qredit.trl.bench.arms import FixedRollouts, QreditArm
from qredit.trl.bench.timing import rollouts_for
from qredit.utils.device import autocast

MOST, ROUNDING = 1e-3, 1.5
LAYOUTS = {"shared": pack, "ordinary": pad_rows}


def check_gradients(plan: Plan, end: float) -> Iterator[Mapping[str, Any]]:
    """The distances, and whether they are as small as they must be."""
    setup = replace(plan.setup(), half=False)  # autocast is put around each pass below
    arm = QreditArm(plan.check, plan.shape, setup, "grpo()", shared=True)
    yield {"not_shared": share_prefix(arm.trainer.model)}
    rows = arm.rows(uneven(rollouts_for(arm, plan.check, plan.shape)))
    exact = gradients(arm, rows, "ordinary", half=False)
    found: dict[str, float] = {}
    for name, half, layout in (
        ("float32 shared", False, "shared"),
        ("bf16", True, "ordinary"),
        ("bf16 shared", True, "shared"),
    ):
        found[name] = distance(gradients(arm, rows, layout, half), exact)
        yield {"distances": dict(found)}
    yield {"passed": agrees(found) and share_prefix(arm.trainer.model) is None}


def uneven(rollouts: FixedRollouts) -> FixedRollouts:
    """The same, each completion a token shorter than the one before: what is padded is compared, too."""
    return replace(rollouts, completions=tuple(ids[place:] for place, ids in enumerate(rollouts.completions)))


def gradients(arm: QreditArm, rows: Rows, layout: str, half: bool) -> tuple[Tensor, ...]:
    """Of the sum of all log-probabilities."""
    with autocast(rows.batch.mask.device, half):
        return logp_gradients(arm.trainer.model, LAYOUTS[layout](rows))


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """‖one - other‖ / ‖other‖ over all parameters."""
    squares = [torch.stack([(a - b).square().sum(), b.square().sum()]) for a, b in zip(one, other, strict=True)]
    apart, whole = torch.stack(squares).double().sum(0).sqrt().tolist()
    return float(apart / whole)


def agrees(distances: Mapping[str, float]) -> bool:
    """Whether sharing changes the gradient by no more than rounding explains."""
    return distances["float32 shared"] <= MOST and distances["bf16 shared"] <= ROUNDING * distances["bf16"]
