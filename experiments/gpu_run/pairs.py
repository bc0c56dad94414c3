"""A trainer of ours against TRL's at one size: updates, memory, sampling, and both together."""

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from gpu_run.budget import fits_another
from gpu_run.plan import Pair, Plan
from qredit.shared_prefix.share import share_prefix
from qredit.trl.bench.arms import Arm, FixedRollouts, QreditArm, make
from qredit.trl.bench.timing import (
    ArmKey,
    make_row,
    matmul_rate,
    peak_of_update,
    rollouts_for,
    text_of,
    time_in_turns,
)

TRL, GRPO, GARL = ("trl", "grpo"), ("qredit", "grpo"), ("qredit", "garl")
Seconds = dict[ArmKey, dict[str, list[float]]]


def measure_pair(plan: Plan, pair: Pair, end: float) -> Iterator[Mapping[str, Any]]:
    """Rows of updates, then the peaks of memory, then rows of sampling and of whole steps, each as it is known."""
    arms = {
        key: make(key[0], text_of(key[1], pair.size), pair.size, plan.shape, plan.setup(pair.lora_r))
        for key in (TRL, GRPO, GARL)
    }
    try:
        rollouts = rollouts_for(arms[GARL], pair.size, plan.shape)
        yield describe(arms[GARL], rollouts)
        seconds = time_in_turns(
            arms, ("update",), rollouts, pair.updates + 1, told, fits_another((time.monotonic() + end) / 2)
        )
        seconds = without_first(seconds)
        yield {"rows": rows(plan, pair, seconds, ("update",))}
        yield {"peaks": peaks(plan, pair, arms, rollouts)}
        sampled = {key: arms[key] for key in (TRL, GARL)}
        found = time_in_turns(sampled, ("sample",), rollouts, pair.samples + pair.warm, told, fits_another(end))
        for key, own in (without_first(found) if pair.warm else found).items():
            seconds[key] |= own
        yield {"rows": rows(plan, pair, seconds, ("sample", "update", "step"))}
    finally:
        arms.clear()
        release()


def describe(arm: Arm, rollouts: FixedRollouts) -> dict[str, Any]:
    """What decides how our update runs: why prompts are not shared, if they are not, and its forward passes."""
    assert isinstance(arm, QreditArm)
    model, scorer = arm.trainer.model, arm.trainer.scorer
    passes = len(scorer.split_rows(arm.rows(rollouts), torch.arange(len(rollouts.completions))))
    trained, whole = (sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (False, True))
    return {"parameters": whole, "trained": trained, "not_shared": share_prefix(model), "passes": passes}


def told(what: str) -> None:
    """Nothing: a line for every round would bury the tables."""


def without_first(seconds: Seconds) -> Seconds:
    """Without the round that warms up, where there are others."""
    return {key: {phase: spent[1:] or spent for phase, spent in own.items()} for key, own in seconds.items()}


def rows(plan: Plan, pair: Pair, seconds: Seconds, phases: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each phase and objective of which there are seconds."""
    setup = plan.setup(pair.lora_r)
    ideal = plan.shape.useful_flops(pair.size, frozen=pair.lora_r is not None) / matmul_rate(setup, plan.matmul)
    found = []
    for phase in phases:
        for key in (GRPO, GARL):
            if phase == "update" or "sample" in seconds[key]:
                row = make_row(pair.size, phase, key[1], "trl", seconds, {}, ideal if phase == "update" else None)
                found.append(asdict(row) | {"rounds": len(seconds[key]["update" if phase == "update" else "sample"])})
    return found


def peaks(plan: Plan, pair: Pair, arms: Mapping[ArmKey, Arm], rollouts: FixedRollouts) -> dict[str, float]:
    """Bytes of an update beyond weights, gradients and moments, by arm."""
    found = {}
    for key in (TRL, GARL):
        found[key[0]] = peak_of_update(arms[key], rollouts, plan.setup(pair.lora_r))
        arms[key].trainer.model.zero_grad(set_to_none=True)
    return found


def release() -> None:
    """Give back the memory of trainers that are done: they hold themselves in circles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
