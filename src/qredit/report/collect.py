"""What a run folder tells, read and never written: torn lines are skipped, missing keys and files tolerated."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qredit.runs.folder import RunFolder
from qredit.utils.errors import QreditError

Entry = Mapping[str, Any]
PREFERRED = "rewards/accuracies"
"""TRL's metric of pairs: the share in which the chosen completion has gained more likelihood than the rejected one."""


@dataclass(frozen=True)
class RunData:
    """A run as its folder tells it.

    Attributes:
        name: short, and different for each run of a report.
        metrics: the entries of steps, in order: those that hold a reward or, of runs without rollouts, a loss.
        decisions: what guide and guard changed: step, change and reason.
        held: p@1, p@k, m@k as {value, low, high}, where an experiment evaluated the final model.
        unreadable_lines: lines of its files that could not be read.
    """

    name: str
    path: Path
    config: Entry = field(default_factory=dict)
    record: Entry = field(default_factory=dict)
    metrics: Sequence[Entry] = ()
    validation: Sequence[Entry] = ()
    credit: Sequence[Entry] = ()
    decisions: Sequence[Entry] = ()
    held: Entry = field(default_factory=dict)
    unreadable_lines: int = 0

    @property
    def objective(self) -> str:
        """The objective in its short form."""
        return str(self.record.get("objective") or self.config.get("objective") or "unknown objective")

    @property
    def is_preference(self) -> bool:
        """Whether it learned from pairs."""
        return bool(self.series(PREFERRED)[0])

    @property
    def steps(self) -> int:
        """The last step that was logged."""
        return max((int(entry["step"]) for entry in self.metrics), default=0)

    def series(self, name: str) -> tuple[list[int], list[float | None]]:
        """Steps and values of a metric, None where it was not a finite number; empty if no entry has it."""
        steps, values = [], [parse_finite(entry.get(name)) for entry in self.metrics if name in entry]
        steps = [int(entry["step"]) for entry in self.metrics if name in entry]
        return (steps, values) if any(value is not None for value in values) else ([], [])


def parse_finite(value: Any) -> float | None:
    """A finite number, or None."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real and math.isfinite(value) else None


def collect_runs(folders: Sequence[str | Path]) -> list[RunData]:
    """The runs in these folders; a folder whose `run/` is one, as experiments leave them, stands for it.

    Raises:
        QreditError: a folder is missing, holds no run, or cannot be read.
    """
    paths = list(dict.fromkeys(_run_in(Path(folder).expanduser()) for folder in folders))
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _run_in(folder: Path) -> Path:
    if not folder.is_dir():
        raise QreditError(f"no run in {folder}: there is no such folder")
    for candidate in (folder, folder / "run"):
        run = RunFolder(candidate)
        if run.config.is_file() or run.metrics.is_file():
            return candidate
    raise QreditError(f"no run in {folder}: it has neither {run.config.name} nor {run.metrics.name}")


def _names(paths: Sequence[Path]) -> list[str]:
    """Each run's last folder name, with as many of its parents as it takes to tell the runs apart."""
    parts = [[part for part in path.absolute().parts if part != "/"] for path in paths]
    parts = [own[:-1] if own[-1] == "run" and len(own) > 1 else own for own in parts]
    depth = 1
    while len({tuple(own[-depth:]) for own in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    names = ["/".join(own[-depth:]) for own in parts]
    return [name if names.count(name) == 1 else f"{name} #{place}" for place, name in enumerate(names, 1)]


def _read(path: Path, name: str) -> RunData:
    run = RunFolder(path)
    try:
        files = {file.name: _lines(file) for file in (run.metrics, run.validation, run.credit, run.decisions)}
        return RunData(
            name=name,
            path=path,
            config=_mapping(run.config, yaml.safe_load),
            record=_mapping(run.record, json.loads),
            metrics=[entry for entry in files[run.metrics.name][0] if "reward" in entry or "loss" in entry],
            validation=files[run.validation.name][0],
            credit=files[run.credit.name][0],
            decisions=files[run.decisions.name][0],
            held=_held(path),
            unreadable_lines=sum(torn for _, torn in files.values()),
        )
    except OSError as error:
        raise QreditError(f"cannot read the run in {path}: {error.strerror}") from None


def _lines(path: Path) -> tuple[list[Entry], int]:
    """The entries of a JSONL file that have a step, and how many lines were no such entry."""
    if not path.is_file():
        return [], 0
    found: list[Entry] = []
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and parse_finite(entry.get("step")) is not None:
            found.append(entry)
    return sorted(found, key=lambda entry: float(entry["step"])), len(lines) - len(found)


def _mapping(path: Path, load: Any) -> Entry:
    """A file of keys and values; empty where it is missing or cannot be read as such."""
    try:
        found = load(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}
    except (ValueError, yaml.YAMLError, RecursionError):
        return {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _held(path: Path) -> Entry:
    """What an experiment measured of the final model, from the file that it keeps beside the run."""
    if path.name != "run":
        return {}
    intervals = _mapping(path.parent / "result.json", json.loads).get("intervals")
    if not isinstance(intervals, dict):
        return {}
    whole = ("value", "low", "high")
    return {
        str(name): {part: parse_finite(found[part]) for part in whole}
        for name, found in intervals.items()
        if isinstance(found, dict) and all(parse_finite(found.get(part)) is not None for part in whole)
    }
