"""What share of a step's processor seconds the process that drives it takes: `python -m tests.support.verl_cpu.driver_share`.

Runs of three sizes on this machine, with a model of 0.15 million parameters. Counted are the processes that Ray gives
work: driver, agent loop, rollout servers, workers, TransferQueue. With any larger model the others take more.
"""  # noqa: E501

import argparse
import contextlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from qredit import pocket
from qredit.runs.options import TrainOptions
from qredit.runs.verl_data import write_verl_data
from tests.support.verl_cpu.tiny_run import start, write_config

SIZES = ((2, 4, 40), (8, 8, 64), (16, 8, 128))
STEPS = 4
ANSWER = 8
DRIVER = "TaskRunner"


def count_seconds(root):
    """Processor seconds so far: of the driver, and of all processes that Ray gives work."""
    driver = whole = 0.0
    for one in psutil.Process(root).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            name = " ".join(one.cmdline())
            if name.startswith("ray::"):
                took = one.cpu_times()
                whole += took.user + took.system
                driver += (took.user + took.system) * (DRIVER in name)
    return driver, whole


def watch(file, seen, over):
    """Add to `seen` what was taken when each step was written down.

    Args:
        file: metrics.jsonl of the run.
        seen: for each step what `count_seconds` told.
        over: an event that is set when the run is over.
    """
    root = psutil.Process().pid
    while not over.is_set():
        lines = file.read_text().count("\n") if file.is_file() else 0
        if lines > len(seen):
            seen.append(count_seconds(root))
        time.sleep(0.05)


def measure(prompts, m, length, objective, data, folder):
    """Tokens of a step, the driver's seconds for its part of it, those of its whole process, and those of all.

    Args:
        prompts: of a step.
        m: rollouts of each.
        length: tokens of a response at most.
        objective: its text.
        data: folder of the parquet files.
        folder: of the run.
    """
    folder.mkdir()
    file = write_config(
        folder, pocket.get_model_path("dial-6"), data, objective,
        **{
            "data.train_batch_size": prompts,
            "data.max_response_length": length,
            "actor_rollout_ref.actor.ppo_mini_batch_size": prompts,
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 4096,
            "actor_rollout_ref.rollout.n": m,
            "trainer.total_training_steps": STEPS,
            "trainer.total_epochs": STEPS,
        },
    )  # fmt: skip
    written, seen, over = folder / "checkpoints" / "metrics.jsonl", [], threading.Event()
    watcher = threading.Thread(target=watch, args=(written, seen, over))
    watcher.start()
    start(folder, file)
    over.set()
    watcher.join()
    lines = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    tokens = [len(part[2]) for _, text in lines for part in json.loads(text)["segments"]]
    steps = [json.loads(line) for line in written.read_text().splitlines()]
    own = sum(one["driver/cpu_seconds"] for one in steps[1:]) / (STEPS - 1)
    driver, whole = ((seen[-1][n] - seen[0][n]) / (len(seen) - 1) for n in (0, 1))
    return sum(tokens) / STEPS, own, driver, whole


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objective", default="garl(q=0.75)")
    objective = parser.parse_args().objective
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        write_verl_data(TrainOptions(task="pocket-dial", subset="96"), data)
        for size in SIZES:
            tokens, own, driver, whole = measure(*size, objective, data, Path(name) / "x".join(map(str, size)))
            sys.stdout.write(
                f"{' x '.join(map(str, size))}: {tokens:.0f} tokens a step, {own:.2f} s of {whole:.1f} s for the part "
                f"of a step that is the driver's ({own / whole:.1%}), {driver:.2f} s ({driver / whole:.1%}) for all "
                "that its process does\n"
            )


if __name__ == "__main__":
    main()
