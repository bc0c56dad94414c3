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
from qredit.trl.bench.size import ModelShape, Size
from qredit.utils.errors import QreditError
from qredit.utils.parent_process import exit_with_parent

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
    cpu: bool,
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
        cpu: use the CPU also where there is an accelerator.
        told: shown what is being done.
    """
    told(f"{size}: making trainers")
    arms = {("trl", "grpo"): make("trl", "grpo()", size, shape, cpu)}
    for objective in objectives:
        for name in ("ordinary", "qredit"):
            arms[name, objective] = make(name, text_of(objective, size), size, shape, cpu)
    rollouts = _given_for(arms["qredit", objectives[0]], size, shape)
    timed = [phase for phase in ("sample", "score", "update") if phase in phases or "step" in phases]
    seconds = {key: {phase: [] for phase in timed} for key in arms}  # type: dict[Any, dict[str, list[float]]]
    for number in range(rounds + 1):
        for key in list(arms) if number % 2 else list(reversed(arms)):
            told(f"{size}: round {number} of {rounds}, {' '.join(key)}")
            for phase in timed:
                spent = _seconds(arms[key], phase, rollouts)
                if number:  # the first round warms up
                    seconds[key][phase].append(spent)
    peaks = {key: peak_memory(*key, size, shape, cpu) for key in arms} if memory else {}
    peak_rate = matmul_rate(cpu)
    flops = shape.useful_flops(size)
    return [
        _row(
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


def _given_for(arm: Arm, size: Size, shape: ModelShape) -> FixedRollouts:
    tokenizer = arm.trainer._tokenizer
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


def _row(
    size: Size,
    phase: str,
    objective: str,
    against: str,
    seconds: Mapping[tuple[str, str], Mapping[str, Sequence[float]]],
    peaks: Mapping[tuple[str, str], float],
    ideal: float | None,
) -> TimingRow:
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
    return [a + b for a, b in zip(seconds["sample"], seconds["update"], strict=True)]


def matmul_rate(cpu: bool, size: int = 2048) -> float:
    """Floating-point operations per second of a large square matrix product on this device, the best of five."""
    device = torch.device("cpu" if cpu else "cuda")
    kind = torch.float32 if cpu else torch.bfloat16
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        _wait()
        start = time.perf_counter()
        a @ b
        _wait()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def peak_memory(name: str, objective: str, size: Size, shape: ModelShape, cpu: bool) -> float:
    """Bytes that an update needs at its peak beyond what model and optimiser hold, in a process of its own.

    Args:
        name: trl, ordinary or qredit.
        objective: in its text form.
        size: tokens of prompt and completion, and rollouts.
        shape: layers, widths and vocabulary of the model.
        cpu: use the CPU also where there is an accelerator.

    Raises:
        QreditError: the process failed.
    """
    told = {"name": name, "objective": text_of(objective, size), "size": str(size), "shape": asdict(shape), "cpu": cpu}
    told |= {"threads": torch.get_num_threads()}
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
    size, shape = Size.parse(told["size"]), ModelShape(**told["shape"])
    torch.set_num_threads(told["threads"])
    arm = make(told["name"], told["objective"], size, shape, told["cpu"])
    parameters = [p for p in arm.trainer.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    rollouts = _given_for(arm, size, shape) if told["name"] != "trl" else make_rollouts(size, shape, 0, 2, 3)
    if not told["cpu"]:
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
