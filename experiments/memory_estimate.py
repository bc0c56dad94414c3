"""The memory that a dry run foretells against the peak of two real steps, each in a process of its own, on Linux.

A section of docs/performance.md. `make memory` takes the two pocket sizes; MODEL=FOLDER adds SmolLM2-135M-Instruct (or
any other small model) at 4 prompts × 8 rollouts × 40 tokens, TRUE=1 the shape of Qwen3-0.6B (16 GiB, five minutes).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import torch
from page import insert

from qredit.runs.folder import RunFolder
from qredit.runs.library_logging import silence_libraries
from qredit.runs.options import TrainOptions
from qredit.runs.train import build_trainer
from qredit.trl.bench.arms import QreditArm
from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import QWEN3_0_6B, ModelShape, Size
from qredit.trl.memory_estimate import count_weight_bytes, estimate_memory, get_resident_bytes

PAGE, TEXT = Path("docs/performance.md"), Path(__file__).with_name("memory_estimate.md.in")
TITLES = {
    "128/128/32": "6.9 million parameters, 128/128/32",
    "1024/128/32": "6.9 million parameters, 1024/128/32",
    "model": "SmolLM2-135M-Instruct, 4 prompts × 8 rollouts × 40 tokens",
    "true": "shape of Qwen3-0.6B, 1536/64/8, gradient checkpointing",
}


def questions(folder: Path) -> str:
    """A hundred sums in words, as a file."""
    path = folder / "questions.jsonl"
    text = "Anna has {} apples, buys {} more and gives {} away. How many apples does she have now?"
    numbers = [(a, b, c) for a in range(10, 20) for b in range(5) for c in range(2)]
    rows = [{"prompt": text.format(a, b, c), "answer": str(a + b - c)} for a, b, c in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trainer_of(name: str, model: str, folder: Path) -> Any:
    """The trainer of a setting, on the CPU, with GARL."""
    if name == "true":
        return QreditArm(Size(1536, 64, 8), QWEN3_0_6B, Setup(checkpointing=True), "garl(q=0.75)", shared=True).trainer
    if name != "model":
        return QreditArm(Size.parse(name), ModelShape(), Setup(), "garl(q=0.75)", shared=True).trainer
    options = TrainOptions(
        task="jsonl",
        data=questions(folder),
        model=model,
        prompts_per_step=4,
        m=8,
        max_completion_length=40,
        steps=2,
        cpu=True,
        save_every=0,
    )
    return build_trainer(options, RunFolder(folder / "run"))[0]


def one(name: str, what: str, model: str) -> Mapping[str, Any]:
    """The estimate, or the peak of two steps, above this process before the model; GiB."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        level = get_resident_bytes()
        trainer = trainer_of(name, model, Path(folder))
        if what == "estimate":
            return estimate_memory(
                trainer, max(get_resident_bytes() - level - count_weight_bytes(trainer.model), 0.0)
            ).as_dict()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        trainer.train()
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return {"peak": (1024 * peak - level) / 2**30}


def main() -> None:
    """Measure every setting and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="folder of a small model")
    parser.add_argument("--true", action="store_true", help="the shape of Qwen3-0.6B too")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "WHAT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    silence_libraries()
    if asked.one:
        name, what = asked.one
        sys.stdout.write(json.dumps(one(name, what, asked.model)) + "\n")
        return
    names = [name for name in TITLES if {"model": bool(asked.model), "true": asked.true}.get(name, True)]
    rows = []
    for name in names:
        told, seen = (_apart(name, what, asked.model) for what in ("estimate", "peak"))
        part = f"{told['phase']}, {told['decided_by']}"
        off = 100 * (told["peak"] / seen["peak"] - 1)
        rows.append(f"| {TITLES[name]} | {told['peak']:.2f} | {seen['peak']:.2f} | {off:+.0f} % | {part} |")
        sys.stderr.write(rows[-1] + "\n")
    machine = f"{os.cpu_count()}-core {platform.machine()} CPU, torch {torch.__version__}, one thread, float32"
    insert(PAGE, "memory", Template(TEXT.read_text()).substitute(machine=machine, rows="\n".join(rows)))


def _apart(name: str, what: str, model: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--model", model, "--one", name, what]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
