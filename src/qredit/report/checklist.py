"""The reporting checklist of the credit-assignment survey, filled from run folders, with what they do not tell."""

import json
import math
import re
import statistics
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qredit.catalog import Row, catalog
from qredit.report.collect import RunData, parse_finite

BASELINES = ("grpo", "dr_grpo", "dapo", "rloo", "reinforce_pp", "reinforce_pp_baseline")
"""Objectives that give a rollout one number, from its reward alone."""
GRANULARITY = {
    "likelihood": "parts of a rollout: its rationale and the reference answer",
    "reward": "whole rollouts, by a reward of another kind",
    "group": "whole rollouts",
    "token": "tokens",
    "step": "steps or turns",
    "penalty": "whole rollouts, with an added term for each token",
}
_ENOUGH_SEEDS = 3
_LARGEST_HEADER = 10_000_000  # bytes; a file that claims more is none of ours
_CRITIC = frozenset({"value"})
_JUDGED = frozenset({"wrong_step", "unused_step", "step_score", "logp@prm"})
_INFORMATION = frozenset({"answer_logp_at", "support@before", "support@after", "entropy"})
_VARIED = ("objective", "seed")


@dataclass(frozen=True)
class Finding:
    """What run folders say to one item of the list.

    Attributes:
        told: what they tell; empty where that is nothing.
        missing: what is to be added by hand, or to be run; empty where nothing is.
    """

    told: str = ""
    missing: str = ""

    @property
    def status(self) -> str:
        """told, partly or missing."""
        return ("partly" if self.told else "missing") if self.missing else "told"


@dataclass(frozen=True)
class Item:
    """One line of the list, filled.

    Attributes:
        number: in the survey's list.
        text: what is to be reported.
        required: else it is recommended.
    """

    number: int
    text: str
    required: bool
    finding: Finding


def fill_checklist(runs: Sequence[RunData]) -> list[Item]:
    """The fourteen items, from what these runs together tell. Nothing is guessed: what is not in a folder is missing.

    Source: arXiv 2604.09459, table 11, read in a transcription of its appendix. Which items are required is told there
    in two ways that differ by one; here ten are.

    Args:
        runs: of one experiment, such as a method and its baseline, each with several seeds.
    """
    return [Item(number, text, required, find(runs)) for number, (text, required, find) in enumerate(_LIST, 1)]


def _each(runs: Sequence[RunData], tell: Callable[[RunData], str]) -> str:
    """What runs tell, once if it is the same; else with their names."""
    told = {run.name: text for run in runs if (text := tell(run))}
    if len(set(told.values())) <= 1 and len(told) == len(runs):
        return next(iter(told.values()), "")
    return "; ".join(f"{name}: {text}" for name, text in told.items())


def _model(runs: Sequence[RunData]) -> Finding:
    sizes = {run.name: count_parameters(run.path / "final") for run in runs}

    def tell(run: RunData) -> str:
        size, name = sizes[run.name], run.config.get("model")
        return f"{name}{'' if size is None else f', {size:,} parameters'}" if name else ""

    unknown = [] if all(sizes.values()) else ["its size"]
    return Finding(_each(runs, tell), ", ".join(["the revision of the weights", *unknown]))


def count_parameters(folder: Path) -> int | None:
    """Numbers in the weights that a folder holds whole, from the headers of its files; None where that is not told.

    Args:
        folder: of a saved model; adapters do not count as one.
    """
    count = 0
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, _LARGEST_HEADER)))  # a longer one is cut, and no JSON
            shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
            count += sum(math.prod(shape) for shape in shapes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
            return None
    return count or None


def _data(runs: Sequence[RunData]) -> Finding:
    def tell(run: RunData) -> str:
        source = run.config.get("data") or run.config.get("task")
        count = parse_finite(run.record.get("train_prompts", run.record.get("train_examples")))
        notes = [str(note) for note in run.record.get("data_notes") or ()]
        return ", ".join([f"{source}, {count:,.0f} prompts", *notes]) if source and count else str(source or "")

    counted = all("train_prompts" in run.record or "train_examples" in run.record for run in runs)
    return Finding(_each(runs, tell), "" if counted else "its size and filters")


def _row(run: RunData) -> Row | None:
    """The registered method that a run's objective begins with; its text is read by name and not parsed."""
    name = re.match(r"\w+", run.objective)
    return next((row for row in catalog()["objectives"] if name and row["name"] == name[0]), None)


def _granularity(runs: Sequence[RunData]) -> Finding:
    def tell(run: RunData) -> str:
        row = _row(run)
        return f"{GRANULARITY[row['family']]} ({run.objective})" if row else ""

    return Finding(_each(runs, tell), _where_unregistered(runs, "what is credited"))


def _family(runs: Sequence[RunData]) -> Finding:
    def tell(run: RunData) -> str:
        row = _row(run)
        return "" if row is None else _name_family(frozenset(row["needs"]), row["family"])

    return Finding(_each(runs, tell), _where_unregistered(runs, "the family of the method"))


def _name_family(needs: frozenset[str], family: str) -> str:
    """Of the survey's families, by what a method reads."""
    if needs & _CRITIC:
        return "temporal difference or value: it reads a critic"
    if needs & _JUDGED:
        return "model-based or a language model as critic: it reads what another model says of steps"
    if needs & _INFORMATION and family in ("step", "token"):
        return "information-theoretic: it reads likelihoods or entropies along the rollout"
    return "Monte Carlo: it compares sampled rollouts"


def _where_unregistered(runs: Sequence[RunData], what: str) -> str:
    others = [run.name for run in runs if _row(run) is None]
    return f"{what} in {', '.join(others)}, whose objective is none of the registered ones" if others else ""


def _is_baseline(run: RunData) -> bool:
    row = _row(run)
    return row is not None and row["name"] in BASELINES and "|" not in run.objective


def _baseline(runs: Sequence[RunData]) -> Finding:
    found = [run for run in runs if _is_baseline(run)]
    others = [run for run in runs if not _is_baseline(run)]
    if not found:
        return Finding(missing="no run of `grpo()` or the like is among these; give one on the same model")
    if not others:
        return Finding("these runs are baselines themselves")
    alike = [run for run in found if all(run.config.get("model") == other.config.get("model") for other in others)]
    told = ", ".join(f"{run.objective} in {run.name}" for run in found)
    return Finding(told, "" if alike else "a baseline on the same model: these have another one")


def _recipe(runs: Sequence[RunData]) -> Finding:
    if len({run.objective for run in runs}) < 2:
        return Finding(missing="nothing to compare with: these runs have one objective")
    keys = dict.fromkeys(key for run in runs for key in run.config if key not in _VARIED)
    differ = [key for key in keys if len({str(run.config.get(key)) for run in runs}) > 1]
    if differ:
        return Finding(f"options that differ: {', '.join(differ)}")
    return Finding("all options are equal but the objective and the seed")


def _ablation(runs: Sequence[RunData]) -> Finding:
    same = _recipe(runs)
    if any(map(_is_baseline, runs)) and not all(map(_is_baseline, runs)) and "differ" not in same.told:
        return Finding("the baseline is the same run without the method's credit")
    return Finding(missing="a run without the part that assigns credit and equal otherwise")


def _benchmarks(runs: Sequence[RunData]) -> Finding:
    def tell(run: RunData) -> str:
        evaluated = sorted(
            {path.stem.removeprefix("eval-").split("-")[0] for path in run.path.glob("eval-*.jsonl")}
            | ({"held out by the experiment"} if run.held else set())
            | ({"validation"} if run.validation else set())
        )
        return f"{run.config.get('task')}, {', '.join(evaluated)}" if evaluated else ""

    silent = [run.name for run in runs if not tell(run)]
    return Finding(
        _each(runs, tell), f"nothing was evaluated in {', '.join(silent)}; run `qredit eval`" if silent else ""
    )


def _metric(runs: Sequence[RunData]) -> Finding:
    def tell(run: RunData) -> str:
        names = {match[1] for entry in run.metrics for key in entry if (match := re.match(r"rewards/(.+)/mean$", key))}
        return f"reward {', '.join(sorted(names))}; evaluations tell p@1, p@k and maj@k of it" if names else ""

    return Finding(_each(runs, tell), "" if all(map(tell, runs)) else "the reward's name in each run")


def _spread(runs: Sequence[RunData]) -> Finding:
    seeds: dict[str, set[Any]] = {}
    for run in runs:
        key = json.dumps({name: value for name, value in run.config.items() if name != "seed"}, default=str)
        seeds.setdefault(f"{run.objective} {key}", set()).add(run.record.get("seed", run.config.get("seed")))
    least = min(map(len, seeds.values()))
    told = f"{least} seeds of each arm" if least > 1 else ""
    if not told and all(run.held for run in runs):
        return Finding("one seed of each arm; 95 % intervals over questions")
    return Finding(told, "" if least >= _ENOUGH_SEEDS else f"{_ENOUGH_SEEDS} seeds of each arm, or an interval")


def _sum_seconds(run: RunData) -> float:
    """Of all steps. An entry of the log is the mean over the steps since the one before; a run may have gone back."""
    steps, means = run.series("step_time")
    entries = zip([0, *steps], steps, means, strict=False)
    return sum(max(step - before, 1) * mean for before, step, mean in entries if mean is not None)


def _hours(runs: Sequence[RunData]) -> Finding:
    seconds = {run.name: _sum_seconds(run) for run in runs}
    silent = [name for name, value in seconds.items() if not value]
    total = sum(seconds.values()) / 3600
    machines = [found for run in runs if isinstance(found := run.record.get("machine"), dict)]
    cards = sorted({str(one["accelerator"]) for one in machines if one.get("accelerator")})
    if not total:
        return Finding(missing="steps were not timed")
    where = f" on {', '.join(cards)}" if cards else " on CPUs, so 0 GPU-hours" if len(machines) == len(runs) else ""
    missing = [f"the time of {', '.join(silent)}"] if silent else []
    missing += ["times the number of cards"] if cards else [] if where else ["the machine"]
    return Finding(f"{total:.3g} hours of steps{where}", ", ".join(missing))


def _extra(runs: Sequence[RunData]) -> Finding:
    from qredit.core.costs import list_costs  # with the objectives, which import torch
    from qredit.objectives.parsing import example

    def tell(run: RunData) -> str:
        row = _row(run)
        if row is None:
            return ""
        logged = [key for key in ("hint/used", "judge/unanswered") if run.series(key)[0]]
        return "; ".join([*list_costs(example(row["name"])), *(f"{key} is logged" for key in logged)]) or "none"

    return Finding(_each(runs, tell), _where_unregistered(runs, "passes, resets and calls"))


def _mean_length(runs: Sequence[RunData]) -> Finding:
    def tell(run: RunData) -> str:
        parts = [("completions/mean_length", "tokens"), ("episode/turns", "turns")]
        known = [(_values(run, key), unit) for key, unit in parts]
        return ", ".join(f"{statistics.fmean(values):.1f} {unit}" for values, unit in known if values)

    told = {run.name: tell(run) for run in runs}
    return Finding(
        _each(runs, lambda run: told[run.name]), "" if all(told.values()) else "lengths were not logged in each run"
    )


def _lengths(runs: Sequence[RunData]) -> Finding:
    def tell(run: RunData) -> str:
        least, most = _values(run, "completions/min_length"), _values(run, "completions/max_length")
        return f"{min(least):.0f} to {max(most):.0f} tokens" if least and most else ""

    return Finding(_each(runs, tell), "the median, which is not logged")


def _values(run: RunData, name: str) -> list[float]:
    return [value for value in run.series(name)[1] if value is not None]


_LIST: Sequence[tuple[str, bool, Callable[[Sequence[RunData]], Finding]]] = (
    ("base model: name, size, version", True, _model),
    ("training data: source, size, filters", True, _data),
    ("granularity of credit", True, _granularity),
    ("family of the method", True, _family),
    ("an episode-level baseline (GRPO, PPO) on the same model", True, _baseline),
    ("the same recipe and compute, or how they differ", True, _recipe),
    ("an ablation of the credit part", False, _ablation),
    ("benchmarks and their splits", True, _benchmarks),
    ("definition of the metric", True, _metric),
    ("spread over three seeds or more, or an interval", False, _spread),
    ("GPU-hours in all", True, _hours),
    ("extra passes, resets and calls of language models", False, _extra),
    ("mean length of a trajectory", True, _mean_length),
    ("least, median and largest length", False, _lengths),
)
