"""Kills training runs again and again, at random moments, resumes them, and prints what came of each as JSON.

Run by test_resume.py in a process of its own: everything is imported once, then every attempt is a fork.

    python tests/support/crash.py FOLDER KILLS SEED OBJECTIVE ...
"""

import gc
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from transformers.utils import logging as hf_logging

import qredit.engine.checkpoint as checkpoint
from qredit.callbacks.metrics_file import MetricsWriter
from tests.support.runs import length_reward, questions, trainer
from tests.support.tiny import model

STEPS, PER_EPOCH = 8, 2


def made(folder: Path, objective: str):
    """Two micro-batches per generation, two steps per epoch, dropout, a checkpoint after every step."""
    return trainer(
        folder, objective, questions(4), model(attention_dropout=0.1), reward_funcs=length_reward,
        callbacks=[MetricsWriter(folder / "metrics.jsonl")], steps_per_generation=2, max_steps=STEPS,
        save_strategy="steps", save_steps=1, save_total_limit=3,
    )  # fmt: skip


def train(folder: Path, objective: str) -> None:
    run = made(folder, objective)
    if checkpoint.find_newest_complete(folder)[0] is not None:
        run.train(resume_from_checkpoint=True)
    else:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        run.train()
    torch.save([p.detach().clone() for p in run.model.parameters()], folder / "weights.pt")


def child(folder: Path, objective: str, die_at_sync: int | None) -> int:
    """A fork that trains; with `die_at_sync` it kills itself when it has synced that many files of its checkpoints."""
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if die_at_sync is not None:
        left, sync = [die_at_sync], os.fsync

        def dying(handle: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(handle)

        os.fsync = dying
    try:
        train(folder, objective)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def finished(pid: int, seconds: float | None) -> int | None:
    """The exit status of a fork, or None when it had to be killed after `seconds`."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)


def step_reached(folder: Path) -> int:
    found, _ = checkpoint.find_newest_complete(folder)
    return int(found.name.split("-")[1]) if found else 0


def killed_and_resumed(root: Path, objective: str, kills: int, seed: int) -> dict:
    """Runs until so many of them were killed: half of them at a write of a checkpoint, half at any time."""
    chance = random.Random(seed)
    reference = root / "uninterrupted"
    reference.mkdir(parents=True)
    start = time.monotonic()
    assert finished(child(reference, objective, None), None) == 0
    whole = time.monotonic() - start
    weights = torch.load(reference / "weights.pt")
    report = {"kills": 0, "during_save": 0, "epochs": [], "runs": 0, "same": [], "metrics": []}
    at_sync = None
    while report["kills"] < kills:
        folder = root / f"run-{report['runs']}"
        folder.mkdir()
        status = None
        while status is None:
            at_sync = chance.randrange(2, 60) if at_sync is None else None
            limit = None if at_sync is not None else chance.uniform(0.1, 0.8) * whole
            enough = report["kills"] >= kills and chance.random() < 0.7
            status = finished(child(folder, objective, None if enough else at_sync), None if enough else limit)
            if status is None:
                report["kills"] += 1
                report["during_save"] += (folder / checkpoint.STAGING_FOLDER).exists()
                report["epochs"].append(step_reached(folder) // PER_EPOCH)
        assert status == 0, status
        report["runs"] += 1
        same = zip(torch.load(folder / "weights.pt"), weights, strict=True)
        report["same"].append(all(torch.equal(a, b) for a, b in same))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        report["metrics"].append([line["step"] for line in lines if "grad_norm" in line] == list(range(1, STEPS + 1)))
    return report


def main() -> None:
    root, kills, seed, *objectives = sys.argv[1:]
    torch.set_num_threads(1)
    hf_logging.set_verbosity_error()
    gc.collect()
    gc.freeze()  # each fork ends its training with a garbage collection
    for number, objective in enumerate(objectives):
        print(json.dumps(killed_and_resumed(Path(root) / str(number), objective, int(kills), int(seed))), flush=True)


if __name__ == "__main__":
    main()
