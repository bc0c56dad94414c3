"""Where the time of our update goes, and what TF32 in the head's products, which are float32, would save and cost."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gpu_run.pairs import GARL, release, told
from gpu_run.plan import Plan
from qredit.trl.bench.arms import Arm, FixedRollouts, QreditArm, make
from qredit.trl.bench.timing import rollouts_for, text_of, time_in_turns

MOST, ROUNDS = 15, 3


def profile_update(plan: Plan, end: float) -> Iterator[Mapping[str, Any]]:
    """Seconds of the kernels that take most; then updates with products in float32 and in TF32, and how far apart the
    log-probabilities are. Weights are random, so logits are smaller than a trained model's, and so is that distance.
    """
    arm = make(GARL[0], text_of(GARL[1], plan.profiled), plan.profiled, plan.shape, plan.setup())
    assert isinstance(arm, QreditArm)
    try:
        rollouts = rollouts_for(arm, plan.profiled, plan.shape)
        seconds, logp = updates(arm, rollouts), log_probs(arm, rollouts)
        yield {"size": str(plan.profiled), "kernels": kernels(arm, rollouts), "seconds": seconds}
        torch.set_float32_matmul_precision("high")
        seconds, gap = updates(arm, rollouts), (log_probs(arm, rollouts) - logp).abs().max()
        yield {"seconds_in_tf32": seconds, "logp_gap_in_tf32": float(gap)}
    finally:
        torch.set_float32_matmul_precision("highest")
        del arm
        release()


def updates(arm: Arm, rollouts: FixedRollouts) -> list[float]:
    """Seconds of some updates after one that warms up."""
    return time_in_turns({GARL: arm}, ("update",), rollouts, ROUNDS + 1, told)[GARL]["update"][1:]


@torch.no_grad()
def log_probs(arm: QreditArm, rollouts: FixedRollouts) -> Tensor:
    """Of every completion token."""
    logp: Tensor = arm.trainer.scorer.score(arm.trainer.model, arm.rows(rollouts))["logp"]
    return logp


def kernels(arm: Arm, rollouts: FixedRollouts) -> list[dict[str, Any]]:
    """The kernels of an update that take most of the device's time, with seconds and calls; on a CPU its operators."""
    on_gpu = arm.trainer.accelerator.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as seen:
        arm.update(rollouts)
        if on_gpu:
            torch.cuda.synchronize()
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda event: -getattr(event, name))[:MOST]
    return [{"name": e.key[:120], "seconds": getattr(e, name) / 1e6, "calls": e.count} for e in events]
