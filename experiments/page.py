"""Measured parts of a page: what stands between two markers is written by a script."""

import json
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from qredit.stats.interval import Interval
from qredit.utils.atomic_files import write_text_atomic

J = TypeVar("J")
RUNS, KEPT = Path("runs/results"), Path("experiments/kept")
RESAMPLES = 2000
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # two-sided, by degrees of freedom: one less than seeds
NONE_SEEN = "None seen"


def kept(folder: Path) -> Path:
    """Where the small result of a run in `runs/results` is kept under version control."""
    return KEPT / folder.relative_to(RUNS).with_name(f"{folder.name}.json")


def read_small_result(path: Path) -> dict[str, Any] | None:
    """What a run came to, by its small file; None where there is none. Nothing is computed."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["result"]
    return found


def read_small_results(paths: Mapping[J, Path]) -> dict[J, dict[str, Any]]:
    """Those that are there, by what they are results of."""
    found = {job: read_small_result(path) for job, path in paths.items()}
    return {job: result for job, result in found.items() if result is not None}


def insert(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of that name in a page: <!-- name --> and <!-- /name -->."""
    before, after = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    pattern = re.compile(re.escape(before) + ".*?" + re.escape(after), re.DOTALL)
    whole, count = pattern.subn(lambda _: before + text + after, page.read_text())
    assert count == 1, f"{page} has no place for {name}"
    page.write_text(whole)


def machine_line() -> str:
    """What the runs of a page were made on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, one thread for each run"


def range_cell(values: Sequence[float], decimals: int = 2) -> str:
    """Mean and range over seeds; of one seed there is no range."""
    told = [f"{value:.{decimals}f}" for value in (statistics.mean(values), min(values), max(values))]
    return told[0] if len(values) == 1 else f"{told[0]} [{told[1]}, {told[2]}]"


def percent_cell(values: Sequence[float]) -> str:
    """The same in percent."""
    return range_cell([100 * value for value in values], decimals=1)


def paired_difference(ones: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> Interval:
    """By how much the first arm's p@1 lies above the second's: 95 % over seeds and questions, both redrawn in pairs."""
    gaps = torch.tensor(
        [
            [a - b for a, b in zip(one["each"]["p@1"], other["each"]["p@1"], strict=True)]
            for one, other in zip(ones, others, strict=True)
        ],
        dtype=torch.float64,
    )
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randint(len(gaps), (RESAMPLES, len(gaps)), generator=generator)
    asked = torch.randint(gaps.shape[1], (RESAMPLES, gaps.shape[1]), generator=generator)
    means = torch.stack([gaps[s][:, q].mean() for s, q in zip(seeds, asked, strict=True)])
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(gaps.mean()), low, high)


def paired_t(ones: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> Interval:
    """The same difference with Student's 95 % interval over seeds, of each of which the mean over questions counts.

    Args:
        ones: results of an arm, one for each of at least two seeds.
        others: those of the other, with the same seeds.
    """
    return compute_t_interval([one["p@1"] - other["p@1"] for one, other in zip(ones, others, strict=True)])


def compute_t_interval(values: Sequence[float]) -> Interval:
    """The mean with Student's 95 % interval, of one value for each of two to five seeds."""
    mean, half = statistics.mean(values), T_95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def gap_cell(gap: Interval) -> str:
    """A difference with its interval, in points."""
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def count_seeds(count: int) -> str:
    """How many seeds a number is of, in words."""
    return "one seed" if count == 1 else f"{count} seeds"


def find_spread(arms: Iterable[Sequence[float]], alone: float = 0.0) -> float:
    """How far apart the seeds of one arm lie, the widest of all arms.

    Args:
        arms: a value for each seed of each.
        alone: what it is taken for where no arm has two seeds.
    """
    return max((max(own) - min(own) for own in arms if len(own) > 1), default=alone)


def tell_gap(measured: str, seeds: int, link: str, doubt: str) -> str:
    """What an objective's page says of its runs: success and difference in points, or why no effect is seen in them."""
    said = f"{measured} points from `grpo()` ({count_seeds(seeds)}; {link})."
    return said + (f" {NONE_SEEN}: {doubt}." if doubt else "")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a data file, whole: another run may be reading it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))


def list_other_golds(prompt: str, gold: str) -> list[str]:
    """Names that stand where the gold answer stands in its fact, in the other facts of the same relation, in order."""
    facts = [line.rstrip(".").split() for line in prompt.split("\n") if line.endswith(".")]
    relation = next(fact[1:-1] for fact in facts if fact[-1] == gold)
    return list(dict.fromkeys(fact[-1] for fact in facts if fact[1:-1] == relation and fact[-1] != gold))
