"""Golden runs: short trainings by two versions of the code, whose weights and records must be the same bit for bit.

    python -m tests.support.golden_runs --base COMMIT [NAME ...]

The base is checked out beside the working tree, and every run is made by both, with the same packages, one thread and
the same seeds, through the command line alone. The base's are kept in runs/golden; remove that folder after a change of
packages. Compared are

- the final weights, bit for bit;
- every record of a run (metrics, samples, credit, decisions, validation), value for value.

Keys that were renamed since stand in tests/golden/renamed.json. What a clock shows is left out. A run that was killed
in the middle of a generation and resumed is compared with the base's, and with the one that was never stopped.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from tests.support.paths import GOLDEN, ROOT
from tests.support.ports import free_port

FOLDER = ROOT / "runs" / "golden"
RENAMED = GOLDEN / "renamed.json"
RECORDS = ("metrics.jsonl", "samples.jsonl", "credit.jsonl", "decisions.jsonl", "validation.jsonl")
CLOCKS = re.compile(r"time/|step_time$|.*_(runtime|per_second)$|seconds$|eta$")
"""Keys whose values a clock gives; a prefix or a whole key."""
WORDS = frozenset({"reason"})
"""Keys of sentences for people, which may be worded anew; what is decided stands beside them."""
SHORT = (
    *("--task", "pocket-hotpot", "--cpu", "--seed", "3", "--steps", "6", "--warmup", "1", "--m", "4"),
    *("--prompts-per-step", "4", "--max-completion-length", "32", "--save-every", "0", "--rows-per-forward", "64"),
)
COMBINED = "add(on_span('answer', amplified_likelihood(q=0.75)), on_span('sampled', reward() | center_by_group()))"


@dataclass(frozen=True)
class Golden:
    """A run.

    Attributes:
        options: flags of `qredit train` beside those that all runs share; the last one given counts.
        ranks: processes.
        killed_at: the step whose checkpoint it is killed after, before it is resumed; None is not at all.
        same_as: another run, whose final weights it must have too.
    """

    name: str
    options: tuple[str, ...]
    ranks: int = 1
    killed_at: int | None = None
    same_as: str | None = None


def _of(objective: str, *options: str) -> tuple[str, ...]:
    return ("--objective", objective, *options)


_REUSED = _of("garl(q=0.75)", "--num-iterations", "2", "--save-every", "1")
GOLDEN = (
    Golden("grpo", _of("grpo()", "--style", "warm")),
    Golden("garl", _of("garl(q=0.75)")),
    Golden("paft", _of("paft(q=0.5)")),
    Golden("schedule", _of("garl(q=linear(1.0, 0.0))")),
    Golden("stateful", _of("epo(low=0.8, high=1.2, height=0.1, decay=1.0)", "--style", "warm")),
    Golden("batch", _of("kl_cov()", "--style", "warm")),
    Golden("batch-stateful", _of("siren(length=32)", "--style", "warm", "--prompts-per-forward", "2")),
    Golden("generation", _of("delta()", "--style", "warm", "--num-iterations", "2")),
    Golden("two-tails", _of(COMBINED, "--style", "warm")),
    Golden("two-tails-base", _of("rlpr()", "--style", "warm")),
    Golden("attention", _of("attention_credit(role=amplify_anchors())", "--style", "warm")),
    Golden("reference", _of("grpo() | kl_to_reference(0.04)", "--style", "warm")),
    Golden("lora", _of("garl(q=0.75)", "--lora", "--lora-r", "4", "--lr", "1e-3")),
    Golden("lora-merged", _of("llds()", "--style", "warm", "--lora", "--lora-r", "4", "--merge-lora")),
    Golden("checkpointing", _of("garl(q=0.75)", "--gradient-checkpointing", "true")),
    Golden("checkpointing-paft", _of("paft(q=0.5)", "--gradient-checkpointing", "true")),
    Golden("accumulation", _of("garl(q=0.75)", "--prompts-per-forward", "1")),
    Golden("accumulation-batch", _of("kl_cov()", "--style", "warm", "--prompts-per-forward", "1")),
    Golden("chunks", _of("garl(q=0.75)", "--rows-per-forward", "3")),
    Golden("ordinary", _of("garl(q=0.75)", "--shared-prefix", "false")),
    Golden("reused", _REUSED),
    Golden("reused-dapo", _of("dapo()", "--style", "warm", "--num-iterations", "3")),
    Golden("reused-paft", _of("paft(q=0.5)", "--steps-per-generation", "2")),
    Golden("dynamic", _of("grpo()", "--style", "warm", "--dynamic-sampling", "2")),
    Golden("dynamic-ranks", _of("grpo()", "--style", "warm", "--dynamic-sampling", "2"), ranks=2),
    Golden("ranks", _of("garl(q=0.75)"), ranks=2),
    Golden("ranks-batch", _of("kl_cov()", "--style", "warm", "--prompts-per-forward", "1"), ranks=2),
    Golden("killed", _REUSED, killed_at=3, same_as="reused"),
    Golden(
        "auto",
        _of("garl(q=auto())", "--guard", "roll_back", "--eval-every", "3", "--eval-questions", "8", "--eval-k", "4"),
    ),
    Golden("auto-ranks", _of("garl(q=auto())"), ranks=2),
)


def main() -> int:
    """Run, compare, and say what differs; 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="commit to compare with")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(one.name for one in GOLDEN)}")
    given = parser.parse_args()
    unknown = set(given.names) - {one.name for one in GOLDEN}
    if unknown:
        parser.error(f"no golden run {', '.join(sorted(unknown))}")
    chosen = [one for one in GOLDEN if one.name in given.names or not given.names]
    out = Console(highlight=False)
    commit = _git("rev-parse", "--verify", f"{given.base}^{{commit}}")
    with checked_out(commit) as base:
        sides = {FOLDER / commit[:12]: base, FOLDER / "now": ROOT}
        shutil.rmtree(FOLDER / "now", ignore_errors=True)
        jobs = [(one, side) for one in chosen for side in sides if not (side / one.name / "final").is_dir()]
        with ThreadPoolExecutor(given.jobs) as pool:
            ended = list(pool.map(lambda job: train(job[0], sides[job[1]], job[1] / job[0].name), jobs))
    failed = {job[0].name: fault for job, fault in zip(jobs, ended, strict=True) if fault is not None}
    if failed:
        out.print("\n".join(failed.values()), markup=False, soft_wrap=True)
    chosen = [one for one in chosen if one.name not in failed]
    renamed = json.loads(RENAMED.read_text())
    different = 0
    for one in chosen:
        base, now = (side / one.name for side in sides)
        faults = [*weight_faults(base, now), *record_faults(base, now, renamed)]
        if one.same_as is not None and (now.parent / one.same_as).is_dir():
            faults += weight_faults(now.parent / one.same_as, now)
        different += bool(faults)
        out.print(f"{one.name:20} {'same' if not faults else 'DIFFERENT'}")
        for fault in faults:
            out.print(f"    {fault}", soft_wrap=True)
    out.print(f"{len(chosen) - different} of {len(chosen)} runs are the same as by {commit[:9]}")
    if failed:
        out.print(f"not compared, because a run failed: {', '.join(failed)}")
    return int(different > 0 or bool(failed))


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The tree of a commit, in a folder of its own for as long as it is needed."""
    folder = FOLDER / f"tree-{commit[:12]}"
    _git("worktree", "prune")
    _git("worktree", "add", "--detach", "--force", str(folder), commit)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def train(golden: Golden, tree: Path, folder: Path) -> str | None:
    """One run by the code of a tree; what went wrong, if anything did."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "qredit", "train", "--quiet", "--output", str(folder)]
    started = [*command, *SHORT, *golden.options]
    shutil.rmtree(folder, ignore_errors=True)  # the rest of a run that was cut off
    if golden.killed_at is None:
        return _run(started, tree, folder, golden.ranks)
    return kill_after(started, tree, folder, golden.killed_at) or _run([*command, "--resume"], tree, folder)


def environments(tree: Path, ranks: int) -> list[dict[str, str]]:
    """The environment of each rank's process; the launchers would take `--m` for one of their own options."""
    alone = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if ranks == 1:
        return [alone]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    return [alone | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _run(command: Sequence[str], tree: Path, folder: Path, ranks: int = 1) -> str | None:
    log = folder.with_suffix(".log")
    with log.open("w") as out:
        processes = [
            subprocess.Popen(command, cwd=folder.parent, env=environment, stdout=out, stderr=subprocess.STDOUT)
            for environment in environments(tree, ranks)
        ]
        codes = [process.wait() for process in processes]
    return f"{' '.join(command)} failed: {log}\n{log.read_text()[-2000:]}" if any(codes) else None


def kill_after(command: Sequence[str], tree: Path, folder: Path, step: int) -> str | None:
    """Start a run and kill it as soon as the checkpoint of a step is there; what went wrong, if anything did."""
    with subprocess.Popen(
        command, cwd=folder.parent, env=environments(tree, 1)[0], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as process:
        while process.poll() is None and not (folder / f"checkpoint-{step}").is_dir():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    return f"{folder}: the run had ended before it could be killed" if (folder / "final").exists() else None


def weight_faults(one: Path, other: Path) -> Iterator[str]:
    """What differs between the final weights of two runs."""
    names = [sorted(path.name for path in (run / "final").glob("*.safetensors")) for run in (one, other)]
    if not names[0] or names[0] != names[1]:
        yield f"weight files: {names[0]} and {names[1]}"
        return
    for name in names[0]:
        before, after = (load_file(run / "final" / name) for run in (one, other))
        if before.keys() != after.keys():
            yield f"weights of {name}: {sorted(before.keys() ^ after.keys())}"
            continue
        wrong = [key for key in before if not torch.equal(before[key].view(torch.uint8), after[key].view(torch.uint8))]
        if wrong:
            largest = max(float((before[key].double() - after[key].double()).abs().max()) for key in wrong)
            yield f"weights of {name}: {len(wrong)} of {len(before)} tensors by {largest:.2g} at most, first {wrong[0]}"


def record_faults(base: Path, now: Path, renamed: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """What differs between the records of two runs, the base's keys under today's names."""
    for name in RECORDS:
        lines = [_lines(run / name) for run in (base, now)]
        before, after = [[_timeless(line) for line in part] for part in lines]
        before = [_under_new_names(line, renamed.get(name, {})) for line in before]
        if len(before) != len(after):
            yield f"{name}: {len(before)} lines and {len(after)}"
        for number, (old, new) in enumerate(zip(before, after, strict=False), start=1):
            wrong = [key for key in sorted(old.keys() | new.keys()) if _text(old, key) != _text(new, key)]
            if wrong:
                key = wrong[0]
                yield f"{name}, line {number}: {', '.join(wrong)}; {_text(old, key)[:80]} and {_text(new, key)[:80]}"
                break


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not CLOCKS.match(key) and key not in WORDS}


def _under_new_names(value: Any, names: Mapping[str, str]) -> Any:
    """Keys, at any depth, under today's names."""
    if isinstance(value, Mapping):
        return {names.get(key, key): _under_new_names(part, names) for key, part in value.items()}
    return [_under_new_names(part, names) for part in value] if isinstance(value, list) else value


def _text(line: Mapping[str, Any], key: str) -> str:
    """A value as JSON, so that NaN equals NaN; a missing key as nothing."""
    return json.dumps(line[key], sort_keys=True) if key in line else ""


if __name__ == "__main__":
    sys.exit(main())
