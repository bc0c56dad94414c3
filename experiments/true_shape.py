"""Two GARL steps at the shape of Qwen3-0.6B, random weights, on a CPU: a section of docs/performance.md.

The full vocabulary of 151 936 tokens, a prompt of 1536 tokens, eight completions of 64; 16 GiB. `make true-shape`.
"""

import argparse
import os
import platform
import resource
import time
from pathlib import Path
from string import Template

import torch
from page import insert

from qredit.runs.library_logging import silence_libraries
from qredit.trl.bench.arms import QreditArm
from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import QWEN3_0_6B, Size

PAGE, TEXT, STEPS = Path("docs/performance.md"), Path(__file__).with_name("true_shape.md.in"), 2
SIZE = Size(prompt=1536, completion=64, m=8)


def main() -> None:
    """Train, then write what it took."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    torch.set_num_threads(os.cpu_count() or 1)
    start = time.perf_counter()
    arm = QreditArm(SIZE, QWEN3_0_6B, Setup(checkpointing=True), "garl(q=0.75)", shared=True)
    made = time.perf_counter() - start
    parameters = sum(p.numel() for p in arm.trainer.model.parameters())
    start = time.perf_counter()
    arm.trainer.train()
    seconds = time.perf_counter() - start
    log = [entry for entry in arm.trainer.state.log_history if "time/update" in entry]
    split = {name: sum(entry[f"time/{name}"] for entry in log) / len(log) for name in ("sample", "score", "update")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    text = Template(TEXT.read_text()).substitute(
        machine=f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
        parameters=f"{parameters / 1e6:.0f}",
        prompt=SIZE.prompt,
        m=SIZE.m,
        completion=SIZE.completion,
        steps=STEPS,
        seconds=f"{seconds / STEPS:.0f}",
        **{name: f"{value:.0f}" for name, value in split.items()},
        peak=f"{peak:.1f}",
        made=f"{made:.0f}",
        losses=", ".join(f"{float(entry['loss']):.4g}" for entry in log),
    )
    insert(PAGE, "true shape", text)


if __name__ == "__main__":
    main()
