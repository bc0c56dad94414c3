"""Timing arms in turns, and the peak memory of each in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from qredit.trl.bench.arms import Arm, FixedRollouts, make, make_rollouts
from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import ModelShape, Size
from qredit.utils.errors import QreditError
from qredit.utils.parent_process import exit_with_parent

ArmKey = tuple[str, str]  # trl, ordinary or qredit; objective
OBJECTIVES = ("grpo", "garl", "paft")
PHASES = ("sample", "score", "update", "step")
AGAINST = ("trl", "ordinary", "garl")


def text_of(objective: str, size: Size) -> str:
    """The objective as it is measured; PAFT draws a quarter of the rows at most."""
    texts = {"grpo": "grpo()", "garl": "garl(q=0.75)", "paft": f"paft(q=0.75, resamples={max(size.m // 4, 1)})"}
    return texts[objective]


@dataclass(frozen=True)
class TimingRow:
    """How much faster a phase is here: the median over rounds of their seconds / our seconds.

    Attributes:
        low, high: smallest and largest ratio of the rounds.
        seconds: ours, the median.
        tokens_per_second: useful tokens, the prompt counted once.
        roofline: useful floating-point operations per second over those of a large matrix product; of updates that
            differentiate every row, so not PAFT's.
        peak_memory_ratio: our peak memory of an update over theirs, each less the level after model and optimiser
            exist; None in rows of another phase.
    """

    prompt: int
    completion: int
    m: int
    phase: str
    objective: str
    against: str
    ratio: float
    low: float
    high: float
    seconds: float
    their_seconds: float
    tokens_per_second: float
    roofline: float | None
    peak_memory_ratio: float | None


def compare(
    size: Size,
    objectives: Sequence[str],
    phases: Sequence[str],
    rounds: int,
    memory: bool,
    shape: ModelShape,
    setup: Setup,
    told: Callable[[str], None],
) -> list[TimingRow]:
    """Every objective against TRL and against the ordinary path, and PAFT against GARL, at one size.

    Args:
        size: tokens of prompt and completion, and rollouts.
        objectives: in their text form.
        phases: sample, score, update or step.
        rounds: measured rounds, after one that is not counted.
        memory: measure peak memory, too.
        shape: layers, widths and vocabulary of the model.
        setup: how all arms compute.
        told: shown what is being done.
    """
    told(f"{size}: making trainers")
    arms = {("trl", "grpo"): make("trl", "grpo()", size, shape, setup)}
    for objective in objectives:
        for name in ("ordinary", "qredit"):
            arms[name, objective] = make(name, text_of(objective, size), size, shape, setup)
    rollouts = rollouts_for(arms["qredit", objectives[0]], size, shape)
    timed = [phase for phase in ("sample", "score", "update") if phase in phases or "step" in phases]
    seconds = time_in_turns(arms, timed, rollouts, rounds + 1, lambda what: told(f"{size}: {what}"))
    seconds = {key: {phase: spent[1:] for phase, spent in own.items()} for key, own in seconds.items()}  # it warms up
    peaks = {key: peak_memory(*key, size, shape, setup) for key in arms} if memory else {}
    peak_rate = matmul_rate(setup)
    flops = shape.useful_flops(size, frozen=setup.lora_r is not None)
    return [
        make_row(
            size,
            phase,
            objective,
            against,
            seconds,
            peaks,
            flops / peak_rate if phase == "update" and objective != "paft" else None,
        )
        for phase in phases
        for objective in objectives
        for against in AGAINST
        if against != "garl" or (objective == "paft" and "garl" in objectives)
    ]


def time_in_turns(
    arms: Mapping[ArmKey, Arm],
    phases: Sequence[str],
    rollouts: FixedRollouts,
    rounds: int,
    told: Callable[[str], None],
    lasts: Callable[[], bool] = lambda: True,
) -> dict[ArmKey, dict[str, list[float]]]:
    """Seconds of every phase of every arm, a list over rounds; arms run in turns, forwards and backwards.

    Args:
        arms: by name and objective.
        phases: sample, score or update.
        rollouts: that all arms update on.
        rounds: the most rounds.
        told: shown what is being done.
        lasts: asked before every round but the first whether there is time for it.
    """
    seconds: dict[ArmKey, dict[str, list[float]]] = {key: {phase: [] for phase in phases} for key in arms}
    for number in range(rounds):
        if number and not lasts():
            break
        for key in list(arms) if number % 2 else list(arms)[::-1]:
            told(f"round {number} of {rounds - 1}, {' '.join(key)}")
            for phase in phases:
                seconds[key][phase].append(_seconds(arms[key], phase, rollouts))
    return seconds


def rollouts_for(arm: Arm, size: Size, shape: ModelShape) -> FixedRollouts:
    """One group of rollouts of that size, in the words of the arm's tokenizer.

    Args:
        arm: one of ours or TRL's.
        size: tokens of prompt and completion, and rollouts.
        shape: layers, widths and vocabulary of the model.
    """
    tokenizer = arm.trainer.processing_class
    opening, closing = (tokenizer.convert_tokens_to_ids(word) for word in ("<think>", "</think>"))
    return make_rollouts(size, shape, 0, opening, closing)


def _seconds(arm: Arm, phase: str, rollouts: FixedRollouts) -> float:
    arm.trainer.model.zero_grad(set_to_none=True)
    _wait()
    start = time.perf_counter()
    if phase == "sample":
        arm.sample()
    else:
        getattr(arm, phase)(rollouts)
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make_row(
    size: Size,
    phase: str,
    objective: str,
    against: str,
    seconds: Mapping[tuple[str, str], Mapping[str, Sequence[float]]],
    peaks: Mapping[tuple[str, str], float],
    ideal: float | None,
) -> TimingRow:
    """How much faster a phase of ours was than what it is held against.

    Args:
        size: tokens of prompt and completion, and rollouts.
        phase: sample, score, update or step.
        objective: of ours.
        against: trl, ordinary or garl.
        seconds: of every phase of every arm, over rounds.
        peaks: bytes of an update, by arm; empty where they were not measured.
        ideal: seconds that the useful arithmetic takes at the device's peak.
    """
    theirs = {"trl": ("trl", "grpo"), "ordinary": ("ordinary", objective), "garl": ("qredit", "garl")}[against]
    ours = ("qredit", objective)
    mine, other = (_of_phase(seconds[key], phase) for key in (ours, theirs))
    ratios = [b / a for a, b in zip(mine, other, strict=True)]
    middle = statistics.median(mine)
    tokens = size.prompt + size.m * size.completion
    return TimingRow(
        prompt=size.prompt,
        completion=size.completion,
        m=size.m,
        phase=phase,
        objective=objective,
        against=against,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        seconds=middle,
        their_seconds=statistics.median(other),
        tokens_per_second=tokens / middle,
        roofline=None if ideal is None else ideal / middle,
        peak_memory_ratio=peaks[ours] / peaks[theirs] if peaks and phase == "update" else None,
    )


def _of_phase(seconds: Mapping[str, Sequence[float]], phase: str) -> list[float]:
    if phase != "step":
        return list(seconds[phase])
    pairs = zip(seconds["sample"], seconds["update"], strict=False)  # where time ran out one has more rounds
    return [a + b for a, b in pairs]


def matmul_rate(setup: Setup, size: int = 2048) -> float:
    """Floating-point operations per second of a large square matrix product on this device, the best of five.

    Args:
        setup: says the device, and whether it computes in bf16.
        size: rows and columns.
    """
    kind = torch.bfloat16 if setup.half else torch.float32
    a, b = (torch.randn(size, size, device=setup.device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        _wait()
        start = time.perf_counter()
        a @ b
        _wait()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def peak_memory(name: str, objective: str, size: Size, shape: ModelShape, setup: Setup) -> float:
    """Bytes that an update needs at its peak beyond what model and optimiser hold, in a process of its own.

    Args:
        name: trl, ordinary or qredit.
        objective: in its text form.
        size: tokens of prompt and completion, and rollouts.
        shape: layers, widths and vocabulary of the model.
        setup: how all arms compute.

    Raises:
        QreditError: the process failed.
    """
    told: dict[str, Any] = {
        "name": name,
        "objective": text_of(objective, size),
        "size": str(size),
        "shape": asdict(shape),
    }
    told |= {"setup": asdict(setup), "threads": torch.get_num_threads()}
    command = [sys.executable, "-m", "qredit.trl.bench.timing", json.dumps(told)]
    lifeline, held = os.pipe()
    try:
        ran = subprocess.run(command, stdin=lifeline, capture_output=True, text=True, check=False)
    finally:
        os.close(lifeline)
        os.close(held)
    if ran.returncode:
        raise QreditError(
            f"the memory of {name} at {size} could not be measured: {ran.stderr.strip().splitlines()[-1:]}"
        )
    return float(ran.stdout.split()[-1])


def _peak_here(told: Mapping[str, Any]) -> float:
    """The same, in this process."""
    size, shape, setup = Size.parse(told["size"]), ModelShape(**told["shape"]), Setup(**told["setup"])
    torch.set_num_threads(told["threads"])
    arm = make(told["name"], told["objective"], size, shape, setup)
    return peak_of_update(arm, rollouts_for(arm, size, shape), setup)


def peak_of_update(arm: Arm, rollouts: FixedRollouts, setup: Setup) -> float:
    """Bytes that an update needs at its peak beyond model, gradients and the moments of AdamW.

    Args:
        arm: whose parameters are not changed.
        rollouts: that it updates on.
        setup: how the arm computes.
    """
    parameters = [p for p in arm.trainer.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    if setup.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        level = torch.cuda.memory_allocated()
        arm.update(rollouts)
        return float(torch.cuda.max_memory_allocated() - level)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    level = _kilobytes("VmRSS")
    arm.update(rollouts)
    return 1024.0 * (_kilobytes("VmHWM") - level)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    # Not through sys.stdin: a thread that holds its lock while it waits makes Python abort at the end.
    exit_with_parent(lambda: os.read(0, 1))
    print(_peak_here(json.loads(sys.argv[1])))  # noqa: T201
